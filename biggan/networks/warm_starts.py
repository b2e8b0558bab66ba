"""The vectors from which sigma_0 regularization and projection start: training state, for they decide bits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from biggan.config.tree import Config
from biggan.networks.initialization import draw_unit_vectors
from biggan.networks.reparametrization import chosen_layers
from biggan.networks.singular import Triplets, start_shape, top_two


class WarmStarts:
    """One block of vectors (see `singular.start_shape`) for each layer whose singular values steer its training.

    Empty where nothing asks for them; each computation is then a fresh one. (Clamping in mode `forward` is part of the
    network, and keeps its own in the network's buffers.)
    """

    def __init__(self, vectors: Mapping[str, Tensor] | None = None, frozen: str = "none") -> None:
        self.vectors, self.frozen = dict(vectors or {}), frozen

    @classmethod
    def of_run(cls, config: Config, networks: Mapping[str, nn.Module]) -> WarmStarts:
        """Random ones for the layers that the configuration names. Raises `UserError` for an unknown layer."""
        vectors: dict[str, Tensor] = {}
        for name, network in networks.items():
            for path, weight in sigma_controlled_layers(config, name, network).items():
                vectors[f"{name}.{path}"] = torch.empty(start_shape(weight.flatten(1)))
                draw_unit_vectors(vectors[f"{name}.{path}"], config.seed, f"sigma_start.{name}.{path}")
                vectors[f"{name}.{path}"] = vectors[f"{name}.{path}"].to(weight.device)
        return cls(vectors, config.train.freeze)

    @torch.no_grad()
    def top_two(self, name: str, layers: Mapping[str, Tensor]) -> dict[str, Triplets]:
        """The two largest singular triplets of raw weights of network "G" or "D", by layer.

        The vectors move to what was found, unless the network is frozen.
        """
        starts = [self.vectors.get(f"{name}.{path}") for path in layers]
        found = top_two([weight.flatten(1) for weight in layers.values()], starts)
        for start, triplets in zip(starts, found, strict=True):
            if start is not None and name != self.frozen:
                start.copy_(triplets.short)
        return dict(zip(layers, found, strict=True))

    def tensors(self) -> dict[str, Tensor]:
        """The vectors under the names that they have in a checkpoint, `sigma_start.G.linear` for example."""
        return {f"sigma_start.{name}": tensor for name, tensor in self.vectors.items()}


def sigma_controlled_layers(config: Config, name: str, network: nn.Module) -> dict[str, nn.Parameter]:
    """The layers of network "G" or "D" that are regularized or projected. Raises `UserError` for an unknown name."""
    sigma = config.regularizers.sigma_G if name == "G" else config.regularizers.sigma_D
    clamp = config.model.clamp_G if name == "G" else config.model.clamp_D
    found: dict[str, nn.Parameter] = {}
    if sigma.strength:
        found |= chosen_layers(network, sigma.layers, ratio=sigma.ratio, where=f"regularizers.sigma_{name}")
    if clamp.on and clamp.mode == "project":
        found |= chosen_layers(network, clamp.layers, ratio=clamp.ratio, where=f"model.clamp_{name}")
    return found
