"""Control of sigma_0 (Section 4.1): clamping (eq. 4) and regularization, and the vectors that both start from.

Clamping happens within the forward, or as a projection after each update. The starting vectors decide bits, so they are
part of the training state; those of clamping within the forward are buffers of the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from biggan.config import ClampConfig, Config
from biggan.errors import UserError, check_known
from biggan.networks.initialization import draw_unit_vectors
from biggan.networks.reparametrization import Reparametrized, matrix_names
from spectra.linalg.topk import top_singular_values, top_singular_values_batch

COUNT = 2  # sigma_0, and sigma_1 for targets that are a ratio of it


class TopTwo(NamedTuple):
    """The largest singular values (k,) of a matrix (rows x columns), descending, left (rows, k) and right (columns, k).

    k is 2, or 1 for a matrix of one row or column. NaN where the matrix is not finite.
    """

    left: Tensor
    values: Tensor
    right: Tensor

    @property
    def short(self) -> Tensor:
        """The vectors on the shorter side, (min(rows, columns), k): where to start from when the matrix has changed."""
        return self.left if len(self.left) <= len(self.right) else self.right


def start_shape(matrix: Tensor) -> tuple[int, int]:
    """The shape of `TopTwo.short` for a matrix."""
    short = min(matrix.shape)
    return short, min(COUNT, short)


@torch.no_grad()
def top_two(matrices: Sequence[Tensor], starts: Sequence[Tensor | None]) -> list[TopTwo]:
    """The two largest singular triplets of each matrix (rows x columns), constants, in its dtype and on its device.

    `starts` (see `start_shape`) holds for each the vectors of an earlier, similar matrix, or None. Exact to rounding
    for matrices of up to a hundred rows or columns, to 1e-5 of sigma_0 beyond (`spectra.top_singular_values`).
    """
    if any(matrix.is_meta or isinstance(matrix, FakeTensor) for matrix in matrices):
        # Shapes without numbers, in an estimate of memory.
        return [_unknown(matrix) for matrix in matrices]
    found = top_singular_values_batch([matrix.detach() for matrix in matrices], COUNT, starts=starts)
    triplets = []
    for one, matrix in zip(found, matrices, strict=True):
        if one.finite and not one.converged:  # training never uses an uncertain value
            one = top_singular_values(matrix.detach(), COUNT, method="exact")
        triplets.append(TopTwo(one.left.to(matrix), one.values.to(matrix), one.right.to(matrix)))
    return triplets


def _unknown(matrix: Tensor) -> TopTwo:
    _, count = start_shape(matrix)
    left, right = (matrix.new_empty((side, count)) for side in matrix.shape)
    return TopTwo(left, matrix.new_empty((count,)), right)


def sigma_and_target(
    matrix: Tensor, found: TopTwo, target: float | None, ratio: float | None
) -> tuple[Tensor, Tensor | float]:
    """sigma_0 = u0^T W v0, whose derivative in W is u0 v0^T, and its target: a number, or r * sg(sigma_1).

    u0, v0 and sigma_1 are constants.
    """
    sigma = torch.dot(found.left[:, 0], matrix @ found.right[:, 0])
    if ratio is not None:
        return sigma, ratio * found.values[1]
    assert target is not None  # the configuration has one of the two
    return sigma, target


def chosen_layers(
    network: nn.Module, wanted: list[str] | None, *, ratio: float | None, where: str
) -> dict[str, nn.Parameter]:
    """The weights of the layers in `wanted`; None: of all.

    With `ratio`, matrices of a single row or column are skipped: they have no second singular value. Raises `UserError`
    for an unknown name (with the nearest one) and for a name in `wanted` that is skipped. `where` is the section of
    the configuration.
    """
    if wanted is not None and not wanted:
        raise UserError(f"{where}.layers is empty. Name the layers, or set it to null for all of them.")
    known = matrix_names(network)
    thin = {name for name, weight in known.items() if ratio is not None and min(weight.flatten(1).shape) < COUNT}
    for name in wanted or ():
        check_known(name, known, f"layer in {where}.layers:")
        if name in thin:
            raise UserError(
                f"{where}.ratio is a ratio of sigma_1, and {name} is a single row or column without a sigma_1. "
                f"Remove it from {where}.layers."
            )
    return {name: known[name] for name in known if name not in thin and (wanted is None or name in wanted)}


class WarmStarts:
    """One block of vectors (see `start_shape`) for each layer that is regularized or projected.

    Without vectors for a layer each computation starts afresh.
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
    def top_two(self, name: str, layers: Mapping[str, Tensor]) -> dict[str, TopTwo]:
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


class SigmaClamp(nn.Module):
    """W - max(0, s0 - c) u0 v0^T (eq. 4), c a number or r * sg(s1).

    u0, v0 and c are constants to the gradient, as u and v are in Spectral Normalization: where s0 > c, the gradient
    loses its part along u0 v0^T. `start` holds the vectors from which the next computation starts.
    """

    start: Tensor

    def __init__(self, weight: Tensor, config: ClampConfig) -> None:
        super().__init__()
        self.value, self.ratio = config.value, config.ratio
        self.register_buffer("start", torch.eye(*start_shape(weight.flatten(1))))  # initialize() draws it

    def forward(self, weight: Tensor, *, iterate: bool) -> Tensor:
        """The clamped weight, of the same shape; `iterate` moves `start`."""
        matrix = weight.flatten(1)
        (found,) = top_two([matrix], [self.start])
        if iterate:
            with torch.no_grad():
                self.start.copy_(found.short)
        sigma, target = sigma_and_target(matrix, found, self.value, self.ratio)
        u, v = found.left[:, 0], found.right[:, 0]
        return weight - ((sigma - target).relu() * torch.outer(u, v)).view_as(weight)


def clamp_layers(network: nn.Module, config: ClampConfig, where: str) -> None:
    """Put a `SigmaClamp` on the layers that `config` names; does nothing unless the mode is `forward`.

    Raises `UserError` for an unknown layer.
    """
    if not config.on or config.mode != "forward":
        return
    for name, weight in chosen_layers(network, config.layers, ratio=config.ratio, where=where).items():
        layer = network.get_submodule(name)
        assert isinstance(layer, Reparametrized)
        layer.add_map("clamp", SigmaClamp(weight, config))


@torch.no_grad()
def project(network: nn.Module, name: str, config: ClampConfig, starts: WarmStarts) -> None:
    """Clamp the raw weights of network "G" or "D" in place; does nothing unless the mode is `project`."""
    if not config.on or config.mode != "project":
        return
    layers = chosen_layers(network, config.layers, ratio=config.ratio, where=f"model.clamp_{name}")
    for path, found in starts.top_two(name, layers).items():
        weight = layers[path]
        sigma, target = sigma_and_target(weight.flatten(1), found, config.value, config.ratio)
        weight.sub_(((sigma - target).relu() * torch.outer(found.left[:, 0], found.right[:, 0])).view_as(weight))
