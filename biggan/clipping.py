"""Gradient clipping (Appendix H)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def clip_gradients(gradients: list[Tensor], *, each: float | None, total: float | None) -> None:
    """Scale gradients in place: each tensor down to a norm of `each`, then all together down to a norm of `total`.

    Shorter ones stay as they are, bit for bit. A norm that is not finite makes the gradient NaN: nothing is hidden.
    """
    if each is not None:
        for gradient in gradients:
            gradient.mul_(_factor(torch.linalg.vector_norm(gradient), each))
    if total is not None:
        factor = _factor(nn.utils.get_total_norm(gradients), total)
        torch._foreach_mul_(gradients, factor)


def _factor(norm: Tensor, limit: float) -> Tensor:
    """limit / norm, at most 1."""
    return torch.where(norm <= limit, torch.ones_like(norm), limit / norm)
