"""Penalties on a network's raw weights. A new one is one function in `PENALTIES`.

All but weight decay of the shared embedding act on the weights of two or more dimensions as out x rest matrices, class
embeddings excepted: convolutions, linear layers, and the projections of a condition to BatchNorm's gains and biases.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from biggan.config.tree import RegularizerConfig
from biggan.networks.reparametrization import chosen_layers, matrix_names
from biggan.networks.singular import sigma_and_target
from biggan.networks.warm_starts import WarmStarts


def weight_matrices(network: nn.Module) -> list[Tensor]:
    """The raw weights of two or more dimensions as out x rest matrices; class embeddings excepted."""
    return [weight.flatten(1) for weight in matrix_names(network).values()]


def orthogonal(matrix: Tensor) -> Tensor:
    """|W W^T o (1 - I)|_F^2 of W (out x rest), eq. 3: the filters' pairwise products, their norms left free.

    Its derivative is 4 (W W^T o (1 - I)) W. Always takes the smaller Gram matrix: |W W^T|_F = |W^T W|_F, and the
    diagonal's share is the sum of the filters' norms to the fourth.
    """
    if matrix.shape[0] <= matrix.shape[1]:
        gram = matrix @ matrix.t()
        return (gram - torch.diag(torch.diagonal(gram))).square().sum()
    return (matrix.t() @ matrix).square().sum() - matrix.square().sum(dim=1).square().sum()


def fully_orthogonal(matrix: Tensor) -> Tensor:
    """|W W^T - I|_F^2 of W (out x rest), eq. 2; its derivative is 4 (W W^T - I) W.

    Of a tall W by the smaller Gram matrix: |W W^T - I|^2 = |W^T W - I|^2 + rows - columns.
    """
    rows, columns = matrix.shape
    gram = matrix @ matrix.t() if rows <= columns else matrix.t() @ matrix
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return (gram - eye).square().sum() + max(rows - columns, 0)


ORTHOGONAL: dict[str, Callable[[Tensor], Tensor]] = {"off_diagonal": orthogonal, "full": fully_orthogonal}


def orthogonal_penalty(network: nn.Module, name: str, config: RegularizerConfig, starts: WarmStarts) -> Tensor | None:
    """Orthogonal regularization, in the form that the configuration names."""
    strength, form = (
        (config.orthogonal_G, config.orthogonal_form_G)
        if name == "G"
        else (config.orthogonal_D, config.orthogonal_form_D)
    )
    if strength == 0:
        return None
    return strength * torch.stack([ORTHOGONAL[form](matrix) for matrix in weight_matrices(network)]).sum()


def l2_penalty(network: nn.Module, name: str, config: RegularizerConfig, starts: WarmStarts) -> Tensor | None:
    """strength * sum of |W|_F^2."""
    strength = config.l2_G if name == "G" else config.l2_D
    if strength == 0:
        return None
    return strength * torch.stack([matrix.square().sum() for matrix in weight_matrices(network)]).sum()


def embedding_decay(network: nn.Module, name: str, config: RegularizerConfig, starts: WarmStarts) -> Tensor | None:
    """decay/2 * |E|_F^2 of G's shared class embedding E, whose gradient is decay * E."""
    if config.embedding_decay == 0 or name != "G":
        return None
    return config.embedding_decay / 2 * network.embedding.weight.square().sum()  # type: ignore[union-attr, operator]


def sigma_penalty(network: nn.Module, name: str, config: RegularizerConfig, starts: WarmStarts) -> Tensor | None:
    """strength * sum of (s0 - target)^2, whose gradient is 2 strength (s0 - target) u0 v0^T; see `SigmaConfig`."""
    settings = config.sigma_G if name == "G" else config.sigma_D
    if settings.strength == 0:
        return None
    layers = chosen_layers(network, settings.layers, ratio=settings.ratio, where=f"regularizers.sigma_{name}")
    gaps = []
    for path, found in starts.top_two(name, layers).items():
        sigma, target = sigma_and_target(layers[path].flatten(1), found, settings.target, settings.ratio)
        gaps.append(sigma - target)
    return settings.strength * torch.stack(gaps).square().sum()


Penalty = Callable[[nn.Module, str, RegularizerConfig, WarmStarts], Tensor | None]
PENALTIES: dict[str, Penalty] = {
    "orthogonal": orthogonal_penalty,
    "l2": l2_penalty,
    "embedding_decay": embedding_decay,
    "sigma": sigma_penalty,
}
"""Name -> a function of the network, its name "G" or "D", the configuration, and where singular vectors start; none
where the configuration does not ask for it."""


def penalties(
    network: nn.Module, name: str, config: RegularizerConfig, starts: WarmStarts | None = None
) -> dict[str, Tensor]:
    """The penalties on network "G" or "D" that the configuration asks for, by name; empty where it asks for none."""
    starts = WarmStarts() if starts is None else starts
    found = {key: penalty(network, name, config, starts) for key, penalty in PENALTIES.items()}
    return {key: value for key, value in found.items() if value is not None}
