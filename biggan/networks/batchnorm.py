"""BatchNorm whose running statistics move only where the trainer says so, and what stands in its place."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.distributed import ranks as distributed
from biggan.networks import cross_replica
from biggan.networks.autocast import REDUCED
from biggan.networks.walk import modules_of


class ChannelMoments:
    """Count, mean and sum of squared deviations a channel, pooled exactly over batches (Chan, Golub, LeVeque)."""

    def __init__(self) -> None:
        self.count: int | Tensor = 0
        self.mean: Tensor | None = None
        self.m2: Tensor | None = None

    def add(self, count: int | Tensor, mean: Tensor, m2: Tensor) -> None:
        """Merge the moments of one more batch."""
        if self.mean is None or self.m2 is None:
            self.count, self.mean, self.m2 = count, mean.clone(), m2.clone()
            return
        total = self.count + count
        delta = mean - self.mean
        self.mean += delta * (count / total)
        self.m2 += m2 + delta.square() * (self.count * count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """The biased variance, which is what BatchNorm divides by."""
        assert self.m2 is not None
        return self.m2 / self.count


class BatchNorm(nn.Module):
    """BatchNorm without gain and bias: batch statistics in training mode, running statistics in eval mode.

    Inside `distributed.synchronized_batchnorm` the batch is that of all ranks.
    Running statistics move only where the trainer says so (`collecting`, then `move_running_statistics`), once an
    update, from the moments pooled over its micro-batches.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, *, eps: float, momentum: float) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.collected: ChannelMoments | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (N, C, H, W) a channel."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, training=False, eps=self.eps)
        if distributed.is_batchnorm_synchronized():
            out, mean, m2, total = cross_replica.normalize(x, self.eps)
            if self.collected is not None:
                self.collected.add(total, mean, m2)
            return out
        if self.collected is None and x.dtype not in REDUCED:
            return F.batch_norm(x, None, None, training=True, eps=self.eps)
        # With momentum 1 the kernel leaves the batch's mean and unbiased variance in these, in float32 also where x is
        # reduced.
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        out = F.batch_norm(x, mean, variance, training=True, momentum=1.0, eps=self.eps)
        if self.collected is not None:
            count = x.numel() // x.shape[1]
            self.collected.add(count, mean, variance * (count - 1))
        return out


def collecting(network: nn.Module) -> AbstractContextManager[None]:
    """Pool the batch moments of every BatchNorm over the training-mode forwards inside the block."""
    return _CollectingInto({layer: ChannelMoments() for layer in _batchnorms(network)})


def not_collecting(network: nn.Module) -> AbstractContextManager[None]:
    """Exclude the forwards inside the block from an enclosing `collecting`: a penalty's own pass."""
    return _CollectingInto(dict.fromkeys(_batchnorms(network)))


def counted_already(network: nn.Module) -> AbstractContextManager[None]:
    """For computing a forward again: each BatchNorm takes the same path as now, and its moments are not counted."""
    layers = _batchnorms(network)
    return _CollectingInto({layer: None if layer.collected is None else ChannelMoments() for layer in layers})


class _CollectingInto:
    """Inside it each BatchNorm adds its moments to those in `moments`; None: to none. May be entered repeatedly."""

    def __init__(self, moments: Mapping[BatchNorm, ChannelMoments | None]) -> None:
        self.moments = moments
        self.before: list[Mapping[BatchNorm, ChannelMoments | None]] = []

    def __enter__(self) -> None:
        self.before.append({layer: layer.collected for layer in self.moments})
        self._set(self.moments)

    def __exit__(self, *error: object) -> None:
        self._set(self.before.pop())

    @staticmethod
    def _set(moments: Mapping[BatchNorm, ChannelMoments | None]) -> None:
        for layer, collected in moments.items():
            vars(layer)["collected"] = collected  # no parameter, buffer or module, which would be looked for


@torch.no_grad()
def move_running_statistics(network: nn.Module) -> None:
    """Move every BatchNorm's running statistics once towards the moments collected so far (inside `collecting`)."""
    for layer in _batchnorms(network):
        if layer.collected is not None and layer.collected.mean is not None:
            layer.running_mean.lerp_(layer.collected.mean, layer.momentum)
            layer.running_var.lerp_(layer.collected.variance, layer.momentum)


@torch.no_grad()
def set_running_statistics(network: nn.Module) -> None:
    """Put the moments collected so far in place of the running statistics (standing statistics, Appendix C.1)."""
    for layer in _batchnorms(network):
        if layer.collected is not None and layer.collected.mean is not None:
            layer.running_mean.copy_(layer.collected.mean)
            layer.running_var.copy_(layer.collected.variance)


def _batchnorms(network: nn.Module) -> list[BatchNorm]:
    return [module for module in modules_of(network) if isinstance(module, BatchNorm)]


def scale_and_shift(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Multiply (N, C, H, W) by a gain and add a bias a channel, (C,) each, in x's precision."""
    return x * gain.to(x.dtype)[:, None, None] + bias.to(x.dtype)[:, None, None]


class AffineBatchNorm(BatchNorm):
    """BatchNorm with a learned gain (from 1) and bias (from 0) a channel: G's last one, and D's."""

    def __init__(self, width: int, *, eps: float, momentum: float) -> None:
        super().__init__(width, eps=eps, momentum=momentum)
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Normalize, scale and shift (N, C, H, W), whatever the condition."""
        if not self.training and x.dtype not in REDUCED:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return scale_and_shift(super().forward(x), self.weight, self.bias)


class ConditionalBatchNorm(BatchNorm):
    """BatchNorm whose gain and bias are functions of a condition: `gain` is added to 1, `bias` to 0 (Section 3).

    `gain` and `bias` are layers from the condition to (N, width): projections of the shared embedding joined with a
    chunk of z, or tables of classes x width.
    """

    def __init__(self, width: int, gain: nn.Module, bias: nn.Module, *, eps: float, momentum: float) -> None:
        super().__init__(width, eps=eps, momentum=momentum)
        self.gain, self.bias = gain, bias

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:  # type: ignore[override]
        """Normalize (N, C, H, W) and modulate it by the condition (N, ...)."""
        gain, bias = 1 + self.gain(condition), self.bias(condition)
        if not self.training and x.dtype not in REDUCED:  # both are constants a channel: one pass over the map
            gain = gain * torch.rsqrt(self.running_var + self.eps)
            return torch.addcmul((bias - gain * self.running_mean)[:, :, None, None], x, gain[:, :, None, None])
        return torch.addcmul(bias[:, :, None, None], super().forward(x), gain[:, :, None, None])


class NoNorm(nn.Module):
    """Nothing, where a normalization may stand."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """x itself."""
        return x


class Affine(nn.Module):
    """The gain and bias of `AffineBatchNorm` without its normalization (Appendix H)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Scale and shift (N, C, H, W)."""
        return scale_and_shift(x, self.weight, self.bias)


class ConditionalAffine(nn.Module):
    """The gain and bias of `ConditionalBatchNorm` without its normalization (Appendix H)."""

    def __init__(self, gain: nn.Module, bias: nn.Module) -> None:
        super().__init__()
        self.gain, self.bias = gain, bias

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Modulate (N, C, H, W) by the condition (N, ...)."""
        gain = 1 + self.gain(condition)
        return torch.addcmul(self.bias(condition)[:, :, None, None], x, gain[:, :, None, None])
