"""G, D and what their layers are made of. `build_networks` is the one place where networks are made.

What the rest of the program asks of a network, so what a new family must have, is written in `networks/base.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from biggan.errors import UserError, check_known
from biggan.registry import imported

if TYPE_CHECKING:
    from torch import nn

    from biggan.config import Config, ModelConfig, SpeedConfig
    from biggan.networks.base import DiscriminatorNetwork, GeneratorNetwork


class Family(NamedTuple):
    """A family of networks: two classes, each made with (ModelConfig, SpeedConfig), or "package.module:Class"."""

    G: Callable[[ModelConfig, SpeedConfig], GeneratorNetwork] | str
    D: Callable[[ModelConfig, SpeedConfig], DiscriminatorNetwork] | str


FAMILIES: dict[str, Family] = {
    "biggan": Family("biggan.networks.generator:Generator", "biggan.networks.discriminator:Discriminator"),
    "biggan-deep": Family("biggan.networks.generator:Generator", "biggan.networks.discriminator:Discriminator"),
}
"""`model.family`: name -> its networks. The SA-GAN and SN-GAN baselines are settings of `biggan`."""


class NetworkPair(NamedTuple):
    """The two networks of a run."""

    G: GeneratorNetwork
    D: DiscriminatorNetwork


def build_networks(config: Config) -> NetworkPair:
    """G and D as the configuration describes them; their weights are not yet those of its seed (see `initialize`).

    Raises `UserError` for an unknown family, and for a configuration that the family cannot be built from.
    """
    return NetworkPair(build_generator(config), build_discriminator(config))


def build_generator(config: Config) -> GeneratorNetwork:
    """Only G; see `build_networks`."""
    network = imported(_family(config).G)(config.model, config.speed)
    _check(network, "G", config)
    return network


def build_discriminator(config: Config) -> DiscriminatorNetwork:
    """Only D; see `build_networks`."""
    network = imported(_family(config).D)(config.model, config.speed)
    _check(network, "D", config)
    return network


def _family(config: Config) -> Family:
    check_known(config.model.family, FAMILIES, "model.family")
    return FAMILIES[config.model.family]


def _check(network: nn.Module, name: str, config: Config) -> None:
    """Refuse layers with a state or randomness of their own, and settings that the network would ignore."""
    from torch.nn.modules.batchnorm import _NormBase
    from torch.nn.modules.dropout import _DropoutNd

    from biggan.networks.base import shared_embedding
    from biggan.networks.sigma_control import SigmaClamp

    family = config.model.family
    for path, module in network.named_modules():
        if isinstance(module, (_NormBase, _DropoutNd)):
            raise UserError(
                f"{name} of the family {family} has a {type(module).__name__} ({path}), which keeps statistics or "
                f"draws numbers in each forward. Use biggan.networks.batchnorm, or D's argument `mask` for dropout."
            )
    clamp = config.model.clamp_G if name == "G" else config.model.clamp_D
    if clamp.on and clamp.mode == "forward" and not any(isinstance(module, SigmaClamp) for module in network.modules()):
        raise UserError(f"model.clamp_{name} is in mode forward, which the family {family} lacks. Use mode project.")
    if config.train.recompute and not hasattr(network, "blocks"):
        raise UserError(f"train.recompute is on, and {name} of the family {family} has no blocks. Turn it off.")
    if name == "G" and config.regularizers.embedding_decay:
        shared_embedding(network)
