"""Spectral Normalization of all layers of a network at once: fewer operators, and fewer passes over the weights.

The same numbers as `SpectrallyNormalized.normalized_weight`, to rounding (tests/test_batched_normalization.py). The
derivative of W / sigma, with u and v constant, is (g - <g, W / sigma> u v^T) / sigma: one pass instead of autograd's
several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from biggan.networks.reparametrization import in_memory_order, is_channels_last

if TYPE_CHECKING:
    from biggan.networks.spectral_norm import SpectrallyNormalized


def normalized_weights(layers: Sequence[SpectrallyNormalized], *, iterate: bool) -> list[Tensor]:
    """W / sigma for each layer, differentiable (once) in W; `iterate` does one power iteration each first."""
    weights = [layer.mapped_weight(iterate=iterate) for layer in layers]
    differentiable = torch.is_grad_enabled()
    with torch.no_grad():
        matrices = [in_memory_order(weight) for weight in weights]
        v = _unit(layers, [torch.mv(m.t(), layer.u) for m, layer in zip(matrices, layers, strict=True)])
        images = [torch.mv(m, right) for m, right in zip(matrices, v, strict=True)]
        u = [layer.u for layer in layers]
        if iterate:
            torch._foreach_copy_(u, moved := _unit(layers, images))
            u = moved
        elif differentiable:  # autograd keeps them, and the next iteration writes into the buffers
            u = [vector.clone() for vector in u]
        sigmas = [torch.dot(left, image) for left, image in zip(u, images, strict=True)]
    return list(_Divide.apply(u, v, sigmas, *weights))


@torch.no_grad()
def estimates_of_sigma(layers: Sequence[SpectrallyNormalized]) -> list[Tensor]:
    """u^T W v of each layer, a scalar, from its vector u as it is; changes nothing."""
    matrices = [in_memory_order(layer.mapped_weight()) for layer in layers]
    v = _unit(layers, [torch.mv(m.t(), layer.u) for m, layer in zip(matrices, layers, strict=True)])
    return [torch.dot(layer.u, torch.mv(m, right)) for m, right, layer in zip(matrices, v, layers, strict=True)]


def _unit(layers: Sequence[SpectrallyNormalized], vectors: list[Tensor]) -> list[Tensor]:
    """Each vector over its norm, or over its layer's epsilon where that is larger."""
    norms = torch._foreach_norm(vectors)
    floors = {layer.eps_sn for layer in layers}
    if len(floors) == 1:
        norms = torch.stack(norms).clamp_min_(floors.pop()).unbind()
    else:
        torch._foreach_clamp_min_(norms, [layer.eps_sn for layer in layers])
    return list(torch._foreach_div(vectors, norms))


class _Divide(torch.autograd.Function):
    """W_i / sigma_i for all i."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, u: list[Tensor], v: list[Tensor], sigmas: list[Tensor], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        outs = tuple(weight / sigma for weight, sigma in zip(weights, sigmas, strict=True))
        ctx.save_for_backward(*outs)
        ctx.vectors = u, v, sigmas  # type: ignore[attr-defined]
        return outs

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        found: list[Tensor | None] = []
        for g, out, u, v, sigma in zip(gradients, ctx.saved_tensors, *ctx.vectors, strict=True):  # type: ignore[attr-defined]
            if g is None:
                found.append(None)
                continue
            layout = torch.channels_last if is_channels_last(out) else torch.contiguous_format
            matrix = in_memory_order(g.contiguous(memory_format=layout))
            share = torch.dot(matrix.view(-1), in_memory_order(out).view(-1))
            raw_gradient = torch.addr(matrix, u, v * share, alpha=-1).div_(sigma)
            if layout == torch.channels_last:
                raw_gradient = raw_gradient.unflatten(1, (*out.shape[2:], out.shape[1])).permute(0, 3, 1, 2)
            found.append(raw_gradient.view_as(out))
        return None, None, None, *found
