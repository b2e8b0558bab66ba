"""Penalties on a network's raw weights. A new one is one function, and one line in `WEIGHT_PENALTIES` (registries.py).

All but weight decay of the shared embedding act on the weights of two or more dimensions as out x rest matrices, class
embeddings excepted: convolutions, linear layers, and the projections of a condition to BatchNorm's gains and biases.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from biggan.config import RegularizerConfig, SigmaConfig
from biggan.errors import check_known
from biggan.networks.base import shared_embedding
from biggan.networks.reparametrization import matrix_names
from biggan.networks.sigma_control import WarmStarts, chosen_layers, sigma_and_target
from biggan.objective.registries import WEIGHT_PENALTIES


def penalized_matrices(network: nn.Module) -> list[Tensor]:
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


def orthogonal_penalty(network: nn.Module) -> Tensor:
    """The sum of `orthogonal` over the weight matrices (eq. 3)."""
    return torch.stack([orthogonal(matrix) for matrix in penalized_matrices(network)]).sum()


def full_orthogonal_penalty(network: nn.Module) -> Tensor:
    """The sum of `fully_orthogonal` over the weight matrices (eq. 2)."""
    return torch.stack([fully_orthogonal(matrix) for matrix in penalized_matrices(network)]).sum()


def l2_penalty(network: nn.Module) -> Tensor:
    """The sum of |W|_F^2 over the weight matrices."""
    return torch.stack([matrix.square().sum() for matrix in penalized_matrices(network)]).sum()


def sigma_penalty(network: nn.Module, name: str, config: SigmaConfig, starts: WarmStarts) -> Tensor:
    """Sum of (s0 - target)^2, whose gradient is 2 (s0 - target) u0 v0^T; see `SigmaConfig`."""
    layers = chosen_layers(network, config.layers, ratio=config.ratio, where=f"regularizers.sigma_{name}")
    gaps = []
    for path, found in starts.top_two(name, layers).items():
        sigma, target = sigma_and_target(layers[path].flatten(1), found, config.target, config.ratio)
        gaps.append(sigma - target)
    return torch.stack(gaps).square().sum()


def penalties(
    network: nn.Module, name: str, config: RegularizerConfig, starts: WarmStarts | None = None
) -> dict[str, Tensor]:
    """The penalties on network "G" or "D" that the configuration asks for, by name; empty where it asks for none."""

    def own(field: str) -> Any:
        return getattr(config, f"{field}_{name}")

    found = {}
    if own("orthogonal"):
        form = "orthogonal_full" if own("orthogonal_form") == "full" else "orthogonal"
        found["orthogonal"] = own("orthogonal") * WEIGHT_PENALTIES[form](network)
    if own("l2"):
        found["l2"] = own("l2") * WEIGHT_PENALTIES["l2"](network)
    if config.embedding_decay and name == "G":  # whose gradient is decay * E
        found["embedding_decay"] = config.embedding_decay / 2 * shared_embedding(network).weight.square().sum()
    if own("sigma").strength:
        starts = WarmStarts() if starts is None else starts
        found["sigma"] = own("sigma").strength * sigma_penalty(network, name, own("sigma"), starts)
    for key, strength in own("weight_penalties").items():
        check_known(key, WEIGHT_PENALTIES, f"regularizers.weight_penalties_{name}")
        if strength:
            found[key] = strength * WEIGHT_PENALTIES[key](network)
    return found
