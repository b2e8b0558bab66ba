"""The building blocks of both families (Appendix B, Figures 15 and 16): residual blocks and the non-local block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.normalization import (
    AffineBatchNorm,
    BatchNorm,
    ConditionalBatchNorm,
    SNConv2d,
    SNEmbedding,
    SNLinear,
)


class LayerMaker:
    """Makes one network's layers, all with Spectral Normalization or all without."""

    def __init__(self, *, spectral_norm: bool, sn_eps: float, bn_eps: float = 1e-4, bn_momentum: float = 0.1) -> None:
        self.spectral_norm, self.sn_eps = spectral_norm, sn_eps
        self.bn_settings = {"eps": bn_eps, "momentum": bn_momentum}

    def conv(self, before: int, after: int, size: int = 3, *, bias: bool = True) -> nn.Module:
        """A `size` x `size` convolution that keeps the resolution."""
        kind = SNConv2d if self.spectral_norm else nn.Conv2d
        return self._prepared(kind(before, after, size, padding=size // 2, bias=bias))

    def linear(self, before: int, after: int, *, bias: bool = True) -> nn.Module:
        """A linear layer."""
        return self._prepared((SNLinear if self.spectral_norm else nn.Linear)(before, after, bias=bias))

    def embedding(self, classes: int, width: int) -> nn.Module:
        """A class embedding (D's is normalized, G's is not and does not come from here)."""
        return self._prepared((SNEmbedding if self.spectral_norm else nn.Embedding)(classes, width))

    def _prepared(self, layer: nn.Module) -> nn.Module:
        if self.spectral_norm:
            layer.prepare_spectral_norm(self.sn_eps)  # type: ignore[operator]
        return layer

    def batchnorm(self, width: int) -> BatchNorm:
        """G's last BatchNorm."""
        return AffineBatchNorm(width, **self.bn_settings)

    def conditional_batchnorm(self, width: int, condition: int, *, table: bool) -> ConditionalBatchNorm:
        """BatchNorm conditioned on a vector of dimension `condition`; with `table`, on one of `condition` classes."""
        gain: nn.Module
        bias: nn.Module
        if table:
            gain, bias = nn.Embedding(condition, width), nn.Embedding(condition, width)
        else:
            gain, bias = (self.linear(condition, width, bias=False) for _ in range(2))
        return ConditionalBatchNorm(width, gain, bias, **self.bn_settings)


def upsample(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling by two."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def downsample(x: Tensor) -> Tensor:
    """Average pooling by two."""
    return F.avg_pool2d(x, 2)


def _same(x: Tensor) -> Tensor:
    return x


RESAMPLE: dict[str, Callable[[Tensor], Tensor]] = {"up": upsample, "down": downsample, "flat": _same}


class GBlock(nn.Module):
    """BigGAN's block in G: BN-ReLU-up-3x3-BN-ReLU-3x3, and a 1x1 skip (Figure 15b).

    `norm` makes a conditional BatchNorm of a given width. An up block has its skip convolution also where widths
    agree; a flat one has none there.
    """

    def __init__(
        self, make: LayerMaker, norm: Callable[[int], ConditionalBatchNorm], kind: str, before: int, after: int
    ) -> None:
        super().__init__()
        self.resample = RESAMPLE[kind]
        self.norm1 = norm(before)
        self.conv1 = make.conv(before, after)
        self.norm2 = norm(after)
        self.conv2 = make.conv(after, after)
        self.skip = make.conv(before, after, 1) if kind != "flat" or before != after else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H', W')."""
        h = self.resample(F.relu(self.norm1(x, condition)))
        h = self.conv1(h)
        h = self.conv2(F.relu(self.norm2(h, condition)))
        skip = self.resample(x)
        return h + (skip if self.skip is None else self.skip(skip))


class DeepGBlock(nn.Module):
    """BigGAN-deep's block in G (Figure 16b): a bottleneck of before/4; the skip keeps the first channels."""

    def __init__(
        self, make: LayerMaker, norm: Callable[[int], ConditionalBatchNorm], kind: str, before: int, after: int
    ) -> None:
        super().__init__()
        self.resample, self.after = RESAMPLE[kind], after
        hidden = before // 4
        self.norm1, self.conv1 = norm(before), make.conv(before, hidden, 1)
        self.norm2, self.conv2 = norm(hidden), make.conv(hidden, hidden)
        self.norm3, self.conv3 = norm(hidden), make.conv(hidden, hidden)
        self.norm4, self.conv4 = norm(hidden), make.conv(hidden, after, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H', W')."""
        h = self.conv1(F.relu(self.norm1(x, condition)))
        h = self.conv2(self.resample(F.relu(self.norm2(h, condition))))
        h = self.conv3(F.relu(self.norm3(h, condition)))
        h = self.conv4(F.relu(self.norm4(h, condition)))
        return h + self.resample(x[:, : self.after])


class DBlock(nn.Module):
    """BigGAN's block in D: ReLU-3x3-ReLU-3x3-pool, and a 1x1 skip (Figure 15c).

    The network's first block has no leading ReLU and pools before its 1x1; the others convolve, then pool.
    `hidden` is the number of filters of the first convolution.
    """

    def __init__(self, make: LayerMaker, kind: str, before: int, after: int, *, hidden: int, first: bool) -> None:
        super().__init__()
        self.resample, self.first = RESAMPLE[kind], first
        self.conv1 = make.conv(before, hidden)
        self.conv2 = make.conv(hidden, after)
        self.skip = make.conv(before, after, 1) if kind != "flat" or before != after else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H', W')."""
        h = self.conv1(x if self.first else F.relu(x))
        h = self.resample(self.conv2(F.relu(h)))
        if self.skip is None:
            return h + self.resample(x)
        return h + (self.skip(self.resample(x)) if self.first else self.resample(self.skip(x)))


class DeepDBlock(nn.Module):
    """BigGAN-deep's block in D (Figure 16c): a bottleneck of after/4; the skip is pooled, then gains channels."""

    def __init__(self, make: LayerMaker, kind: str, before: int, after: int) -> None:
        super().__init__()
        self.resample = RESAMPLE[kind]
        hidden = after // 4
        self.conv1 = make.conv(before, hidden, 1)
        self.conv2 = make.conv(hidden, hidden)
        self.conv3 = make.conv(hidden, hidden)
        self.conv4 = make.conv(hidden, after, 1)
        self.skip = make.conv(before, after - before, 1) if after > before else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H', W')."""
        h = self.conv1(F.relu(x))
        h = self.conv2(F.relu(h))
        h = self.conv3(F.relu(h))
        h = self.conv4(self.resample(F.relu(h)))
        skip = self.resample(x)
        return h + (skip if self.skip is None else torch.cat([skip, self.skip(skip)], dim=1))


class NonLocalBlock(nn.Module):
    """Self-attention over positions (Zhang et al., 2018): x + gain * o(softmax(theta^T phi) g), the gain from 0.

    theta and phi have an eighth of the channels, g a half; phi and g are max-pooled by two.
    """

    def __init__(self, make: LayerMaker, width: int) -> None:
        super().__init__()
        self.theta = make.conv(width, width // 8, 1, bias=False)
        self.phi = make.conv(width, width // 8, 1, bias=False)
        self.g = make.conv(width, width // 2, 1, bias=False)
        self.o = make.conv(width // 2, width, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        theta = self.theta(x).flatten(2)  # N, C/8, HW
        phi = F.max_pool2d(self.phi(x), 2).flatten(2)  # N, C/8, HW/4
        g = F.max_pool2d(self.g(x), 2).flatten(2)  # N, C/2, HW/4
        attention = torch.softmax(theta.transpose(1, 2) @ phi, dim=-1)  # N, HW, HW/4
        out = (g @ attention.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.gain * self.o(out)
