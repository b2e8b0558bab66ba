"""Penalties on a network's raw weights. A new one is one function of a weight matrix, summed over the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from biggan.config import RegularizerConfig


def weight_matrices(network: nn.Module) -> list[Tensor]:
    """The raw weights of two or more dimensions as out x rest matrices; class embeddings excepted."""
    return [
        parameter.flatten(1)
        for module in network.modules()
        if not isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim >= 2
    ]


def orthogonal(matrix: Tensor) -> Tensor:
    """|W W^T o (1 - I)|_F^2 of W (out x rest), eq. 3: the filters' pairwise products, their norms left free.

    Its derivative is 4 (W W^T o (1 - I)) W. Always takes the smaller Gram matrix: |W W^T|_F = |W^T W|_F, and the
    diagonal's share is the sum of the filters' norms to the fourth.
    """
    if matrix.shape[0] <= matrix.shape[1]:
        gram = matrix @ matrix.t()
        return (gram - torch.diag(torch.diagonal(gram))).square().sum()
    return (matrix.t() @ matrix).square().sum() - matrix.square().sum(dim=1).square().sum()


def penalties(network: nn.Module, name: str, config: RegularizerConfig) -> dict[str, Tensor]:
    """The penalties on network "G" or "D" that the configuration asks for, by name; empty where it asks for none."""
    strength = config.orthogonal_G if name == "G" else config.orthogonal_D
    if strength == 0:
        return {}
    total = torch.stack([orthogonal(matrix) for matrix in weight_matrices(network)]).sum()
    return {"orthogonal": strength * total}
