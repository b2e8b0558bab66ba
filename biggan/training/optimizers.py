"""Adam, and clipping of gradients (Appendix H)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from biggan.config import AdamConfig


def make_adam(network: nn.Module, config: AdamConfig) -> torch.optim.Adam:
    """Adam over all parameters, its moments made at once so that the state is whole from step 0 on."""
    parameters = list(network.parameters())
    optimizer = torch.optim.Adam(
        parameters, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True
    )
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


@torch.no_grad()
def clip_gradients(gradients: list[Tensor], *, each: float | None, total: float | None) -> None:
    """Scale gradients in place: each tensor down to a norm of `each`, then all together down to a norm of `total`.

    Shorter ones stay as they are, bit for bit. A norm that is not finite makes the gradient NaN: nothing is hidden.
    """
    if each is not None:
        for gradient in gradients:
            gradient.mul_(_factor(_norm(gradient), each))
    if total is not None:
        factor = _factor(torch.stack([_norm(gradient) for gradient in gradients]).norm(), total)
        for gradient in gradients:
            gradient.mul_(factor)


def _norm(gradient: Tensor) -> Tensor:
    """In float64, whose squares do not overflow where the entries are finite."""
    return torch.linalg.vector_norm(gradient, dtype=torch.float64)


def _factor(norm: Tensor, limit: float) -> Tensor:
    """limit / norm, at most 1; NaN where the norm is not finite."""
    factor = torch.where(norm <= limit, torch.ones_like(norm), limit / norm)
    return torch.where(norm.isfinite(), factor, torch.full_like(norm, float("nan")))
