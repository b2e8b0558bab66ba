"""BatchNorm's normalization by the statistics of all ranks' images, with gradients through them.

Each rank's (count, mean, M2) a channel is gathered once and merged by Chan's formula (Chan, Golub, LeVeque, 1979), in
float32 or the map's own type where that is wider. On a GPU the kernels of torch's SyncBatchNorm do the same with fewer
passes over the map; they have no second derivatives, which R1 needs where D has BatchNorm, and do not run on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from biggan.distributed.collectives import AllSum, all_sum, gather

DIMS = (0, 2, 3)


class _PooledMoments(torch.autograd.Function):
    """(mean, M2) a channel of `count` numbers on each rank -> mean, M2 and count over all, equal on every rank.

    With N the count and m, M2 the pooled moments: dm/dm_r = n_r/N, dM2/dm_r = 2 n_r (m_r - m), dM2/dM2_r = 1. The
    backward pass is made of differentiable operations, m being an output, and so is differentiable itself.
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, m2: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        width = len(mean)
        every = gather(torch.cat([mean, m2, mean.new_full((1,), count)]))
        means, m2s, counts = every[:, :width], every[:, width:-1], every[:, -1:]
        total = counts.sum()
        pooled = means[0] + (counts / total * (means - means[0])).sum(dim=0)
        pooled_m2 = m2s.sum(dim=0) + (counts * (means - pooled).square()).sum(dim=0)
        ctx.count = count
        ctx.save_for_backward(mean, pooled, total)
        ctx.mark_non_differentiable(total)
        return pooled, pooled_m2, total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, gradient_m2: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
        mean, pooled, total = ctx.saved_tensors
        to_mean, to_m2 = AllSum.apply(torch.stack([gradient, gradient_m2]))
        return ctx.count / total * to_mean + 2 * ctx.count * (mean - pooled) * to_m2, to_m2, None


def _normalize(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(N, C, H, W) normalized, and mean, 1 / deviation, M2 (C,) and count over all ranks.

    Differentiable to all orders.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    mean = wide.mean(dim=DIMS)
    m2 = (wide - mean[:, None, None]).square().sum(dim=DIMS)
    mean, m2, total = _PooledMoments.apply(mean, m2, x.numel() // x.shape[1])
    scale = (m2 / total + eps).rsqrt()
    return ((wide - mean[:, None, None]) * scale[:, None, None]).to(x.dtype), mean, scale, m2, total


def _has_kernels(x: Tensor) -> bool:
    return x.is_cuda


def _normalize_by_kernels(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What `_normalize` gives, without derivatives, and behind it the count of each rank."""
    width = x.shape[1]
    mean, scale = torch.batch_norm_stats(x, eps)
    every = gather(torch.cat([mean, scale, mean.new_full((1,), x.numel() // width)]))
    means, scales, counts = every[:, :width], every[:, width:-1], every[:, -1]
    mean, scale = torch.batch_norm_gather_stats_with_counts(x, means, scales, None, None, 0.0, eps, counts)
    out = torch.batch_norm_elemt(x, None, None, mean, scale, eps)
    total = counts.sum()
    return out, mean, scale, (scale.pow(-2) - eps) * total, total, counts


def _gradient_by_kernels(gradient: Tensor, x: Tensor, mean: Tensor, scale: Tensor, counts: Tensor) -> Tensor:
    sums = torch.batch_norm_backward_reduce(gradient, x, mean, scale, None, True, False, False)[:2]
    to_mean, to_scale = all_sum(torch.stack(sums))
    return torch.batch_norm_backward_elemt(gradient, x, mean, scale, None, to_mean, to_scale, counts.int())


class _Normalize(torch.autograd.Function):
    """`_normalize` that keeps nothing but its input; where second derivatives are asked for, it is computed again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if _has_kernels(x):
            x = x if x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()
            out, mean, scale, m2, total, counts = _normalize_by_kernels(x, eps)
        else:
            out, mean, scale, m2, total = _normalize(x, eps)
            counts = total
        ctx.eps = eps
        ctx.save_for_backward(x, mean, scale, total, counts)
        ctx.mark_non_differentiable(mean, m2, total)
        return out, mean, m2, total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        x, mean, scale, total, counts = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the derivative of the gradient is wanted too
            out = _normalize(x, ctx.eps)[0]
            return torch.autograd.grad(out, x, gradient, create_graph=True)[0], None
        if _has_kernels(x):
            layout = torch.channels_last if not x.is_contiguous() else torch.contiguous_format
            return _gradient_by_kernels(gradient.contiguous(memory_format=layout), x, mean, scale, counts), None
        wide = gradient.to(mean.dtype)
        normal = (x.to(mean.dtype) - mean[:, None, None]) * scale[:, None, None]
        sums = all_sum(torch.stack([wide.sum(dim=DIMS), (wide * normal).sum(dim=DIMS)])) / total
        back = (wide - sums[0][:, None, None] - normal * sums[1][:, None, None]) * scale[:, None, None]
        return back.to(x.dtype), None


def normalize(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N, C, H, W) -> x normalized a channel; mean (C,), M2 (C,) and count () over all ranks, which are constants.

    Every rank must call it, with at least one image; ranks may have different numbers of them. The gradient is that of
    the sum of the ranks' losses.
    """
    return _Normalize.apply(x, eps)
