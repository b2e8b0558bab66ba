"""Which networks of a trainer's module a callback watches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def chosen_networks(module: nn.Module, chosen: str | Sequence[str] | Mapping[str, str] | None) -> dict[str, nn.Module]:
    """The networks of a module by name.

    Args:
        module: what the trainer trains.
        chosen: one attribute of the module or several ("encoder"; "model.decoder" is one inside another), or names for
            them ({"net": "encoder"}). None: the whole module, as "model".

    Raises:
        ValueError: an attribute that the module does not have, or one that is not a network.
    """
    from torch import nn

    from spectra.networks.wrappers import unwrapped

    module = unwrapped(module)
    if chosen is None:
        return {"model": module}
    if isinstance(chosen, str):
        chosen = [chosen]
    paths = chosen if isinstance(chosen, Mapping) else {path.rpartition(".")[2]: path for path in chosen}
    found: dict[str, nn.Module] = {}
    for name, path in paths.items():
        network: object = module
        for part in path.split("."):
            if not hasattr(network, part):
                raise ValueError(f"the module has no attribute {path!r} to watch")
            network = getattr(network, part)
        if not isinstance(network, nn.Module):
            raise ValueError(f"the module's attribute {path!r} is not a network, but {type(network).__name__}")
        found[name] = network
    return found
