"""Spectral Normalization, and conditional BatchNorm with running and standing statistics.

Spectral Normalization (Miyato et al., 2018) divides a weight by the estimate u^T W v of its largest singular value.
The normalized weights are computed once an update, in a `normalized` block, and used by every forward inside it:
each micro-batch, a penalty's second pass, recomputation. Outside such a block they are computed where they are
used, and nothing is ever updated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.distributed import ranks as distributed
from biggan.networks import cross_replica
from biggan.networks.autocast import REDUCED
from biggan.networks.batched_spectral_norm import normalized_weights
from biggan.networks.reparametrization import Conv2d, Linear, Reparametrized, in_memory_order


class SpectrallyNormalized(Reparametrized):
    """Mixin for a layer whose `weight` (out x ...) is divided by an estimate of its largest singular value.

    `u` (out,) is the running estimate of the first left singular vector, part of the state. Where the layer has maps,
    the matrix that is meant is what comes out of them. `spectra` reads `normalized_weight()` and `sigma_estimate()`.
    """

    u: Tensor
    eps_sn: float
    is_mapped = True

    def prepare_spectral_norm(self, eps: float) -> None:
        """Add the vector and the settings to a layer that has its weight."""
        self.eps_sn = eps
        u = torch.zeros(self.weight.shape[0], dtype=self.weight.dtype, device=self.weight.device)
        u[:1] = 1.0  # initialize() draws it; a unit vector until then
        self.register_buffer("u", u)  # type: ignore[attr-defined]

    def _sigma(self, matrix: Tensor, *, iterate: bool) -> Tensor:
        with torch.no_grad():
            v = F.normalize(matrix.t() @ self.u, dim=0, eps=self.eps_sn)
            if iterate:
                self.u.copy_(F.normalize(matrix @ v, dim=0, eps=self.eps_sn))
            u = self.u.clone()  # autograd keeps it; the next iteration writes into the buffer
        return torch.dot(u, matrix @ v)

    def normalized_weight(self, *, iterate: bool = False) -> Tensor:
        """W / sigma, differentiable in W with u and v held constant; `iterate` does one power iteration first."""
        weight = self.mapped_weight(iterate=iterate)
        return weight / self._sigma(in_memory_order(weight), iterate=iterate)

    def sigma_estimate(self) -> Tensor:
        """The estimate u^T W v that is divided by, a scalar; changes nothing."""
        with torch.no_grad():
            return self._sigma(in_memory_order(self.mapped_weight()), iterate=False)

    @torch.no_grad()
    def converge_sigma(self, iterations: int) -> None:
        """So many power iterations, from the vector that the layer has."""
        matrix = in_memory_order(self.mapped_weight())
        for _ in range(iterations):
            self._sigma(matrix, iterate=True)


class SNConv2d(SpectrallyNormalized, Conv2d):
    """A spectrally normalized convolution."""


class SNLinear(SpectrallyNormalized, Linear):
    """A spectrally normalized linear layer."""


class SNEmbedding(SpectrallyNormalized, nn.Embedding):
    """A spectrally normalized embedding (classes x width)."""

    def forward(self, y: Tensor) -> Tensor:
        """(N,) -> (N, width)."""
        return F.embedding(y, self.current_weight())


@contextmanager
def normalized(network: nn.Module, *, iterate: bool, grad: bool = True) -> Iterator[None]:
    """Compute every normalized or otherwise mapped weight of `network` once, for all forwards inside the block.

    `iterate`: one power iteration each first, where the network is in training mode (eval mode updates nothing).
    `grad`: keep the graph from the raw weights; off where the network is only used, not trained.
    """
    layers = [module for module in network.modules() if isinstance(module, Reparametrized) and module.is_mapped]
    with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
        iterate = iterate and network.training
        for layer, weight in zip(layers, _weights_in_use(network, layers, iterate=iterate), strict=True):
            layer.applied = weight
    try:
        yield
    finally:
        for layer in layers:
            layer.applied = None


def _weights_in_use(network: nn.Module, layers: list[Reparametrized], *, iterate: bool) -> Iterable[Tensor]:
    together = [layer for layer in layers if isinstance(layer, SpectrallyNormalized)]
    if not together or not getattr(network, "batched_power_iteration", False):
        return (layer.normalized_weight(iterate=iterate) for layer in layers)
    found = dict(zip(together, normalized_weights(together, iterate=iterate), strict=True))
    return (found[layer] if layer in found else layer.normalized_weight(iterate=iterate) for layer in layers)


class Moments:
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
        self.collected: Moments | None = None

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
        # With momentum 1 the kernel leaves the batch's own mean and unbiased variance in these; where x is reduced,
        # their being float32 makes it compute them so.
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        out = F.batch_norm(x, mean, variance, training=True, momentum=1.0, eps=self.eps)
        if self.collected is not None:
            count = x.numel() // x.shape[1]
            self.collected.add(count, mean, variance * (count - 1))
        return out


def collecting(network: nn.Module) -> AbstractContextManager[None]:
    """Pool the batch moments of every BatchNorm over the training-mode forwards inside the block."""
    return _CollectingInto({layer: Moments() for layer in _batchnorms(network)})


def not_collecting(network: nn.Module) -> AbstractContextManager[None]:
    """Leave the forwards inside the block out of an enclosing `collecting`: a penalty's own pass."""
    return _CollectingInto(dict.fromkeys(_batchnorms(network)))


def counted_already(network: nn.Module) -> AbstractContextManager[None]:
    """For a forward that is computed again later: each BatchNorm goes the way it goes now, and no moment is counted."""
    layers = _batchnorms(network)
    return _CollectingInto({layer: None if layer.collected is None else Moments() for layer in layers})


class _CollectingInto:
    """Inside it each BatchNorm's moments go where `moments` says, for none nowhere. May be entered again and again."""

    def __init__(self, moments: Mapping[BatchNorm, Moments | None]) -> None:
        self.moments = moments
        self.before: list[Mapping[BatchNorm, Moments | None]] = []

    def __enter__(self) -> None:
        self.before.append({layer: layer.collected for layer in self.moments})
        self._set(self.moments)

    def __exit__(self, *error: object) -> None:
        self._set(self.before.pop())

    @staticmethod
    def _set(moments: Mapping[BatchNorm, Moments | None]) -> None:
        for layer, one in moments.items():
            layer.collected = one


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
    return [module for module in network.modules() if isinstance(module, BatchNorm)]


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
        gain = 1 + self.gain(condition)
        return torch.addcmul(self.bias(condition)[:, :, None, None], super().forward(x), gain[:, :, None, None])


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
