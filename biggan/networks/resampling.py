"""Resampling by two, and the convolution next to it: as Appendix B writes them, or fused, with less work.

Every path is the same function; only rounding differs (tests/biggan/networks/test_resampling.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.config import SpeedConfig
from biggan.networks.reparametrization import Conv2d


def upsample(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling by two."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def upsample_bilinear(x: Tensor) -> Tensor:
    """Bilinear upsampling by two (Appendix H)."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def downsample(x: Tensor) -> Tensor:
    """Average pooling by two."""
    return F.avg_pool2d(x, 2)


def _same(x: Tensor) -> Tensor:
    return x


UPSAMPLE: dict[str, Callable[[Tensor], Tensor]] = {"nearest": upsample, "bilinear": upsample_bilinear}


class Resampling:
    """A block's resampling, alone and next to a convolution.

    Args:
        kind: "up" or "down" by two, or "flat" for none.
        up: "nearest" or "bilinear".
        speed: which of the faster forms are used.
    """

    def __init__(self, kind: str, up: str, speed: SpeedConfig) -> None:
        self.kind: str = kind
        self.plain = {"up": UPSAMPLE[up], "down": downsample, "flat": _same}[kind]
        self.nearest = up == "nearest"
        self.use(speed)

    def use(self, speed: SpeedConfig) -> None:
        """Use these of the faster forms from now on."""
        self.narrow, self.fused = speed.narrow_skips, speed.fused_resampling

    def __call__(self, x: Tensor) -> Tensor:
        """Resample (N, C, H, W)."""
        return self.plain(x)

    def then(self, conv: nn.Module, x: Tensor) -> Tensor:
        """conv(resample(x)), as G's blocks do."""
        n, _, height, width = x.shape
        wanted = self.fused and self.kind == "up" and self.nearest
        if wanted and _is_plain_3x3(conv) and is_faster_fused(conv, n, height, width):
            return upsample_and_convolve(x, conv.current_weight(), conv.bias)
        return conv(self.plain(x))

    def after(self, conv: nn.Module, x: Tensor) -> Tensor:
        """resample(conv(x)), as D's blocks do."""
        n, _, height, width = x.shape
        wanted = self.fused and self.kind == "down"
        if wanted and _is_plain_3x3(conv) and is_faster_fused(conv, n, height // 2, width // 2):
            return convolve_and_downsample(x, conv.current_weight(), conv.bias)
        return self.plain(conv(x))

    def skip_then(self, conv: nn.Module, x: Tensor) -> Tensor:
        """conv(resample(x)) for a 1x1 convolution, which mixes only channels and so may come first."""
        return self.plain(conv(x)) if self.narrow and self.kind == "up" else conv(self.plain(x))

    def skip_after(self, conv: nn.Module, x: Tensor) -> Tensor:
        """resample(conv(x)) for a 1x1 convolution, which may come last."""
        return conv(self.plain(x)) if self.narrow and self.kind == "down" else self.plain(conv(x))


def _is_plain_3x3(conv: nn.Module) -> TypeGuard[Conv2d]:
    return isinstance(conv, Conv2d) and conv.kernel_size == (3, 3) and conv.dilation == (1, 1)


def is_faster_fused(conv: nn.Conv2d, n: int, height: int, width: int) -> bool:
    """Whether the fused form of a 3x3 convolution is faster, the smaller of its maps being (n, ..., height, width).

    It does 4/9 of the multiplications with 16/9 of the taps, so it is slower for large filters on few pixels. Forward
    and backward of 20 shapes on one CPU core, contiguous: 1.1 to 3.3 times as fast where this is true, 0.3 to 1.2
    times where it is false.
    """
    filters = conv.weight.shape[0] * conv.weight.shape[1]
    return n * height * width >= 512 and (min(height, width) >= 8 or filters <= 256**2)


# Along one axis, the filter of four taps for w of three: the transposed convolution's tap 0 puts x[a] into the output
# 2a - 1, where only w2 sees it; tap 1 into 2a, seen by w1 and w2; and so on.
_UP = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
_DOWN = ((0.5, 0.0, 0.0), (0.5, 0.5, 0.0), (0.0, 0.5, 0.5), (0.0, 0.0, 0.5))


def upsample_and_convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """conv(upsample(x)) for nearest upsampling and a 3x3 `weight` (out, in, 3, 3) with padding 1.

    Among the nine pixels under the filter only four differ, so four taps do: (N, in, H, W) -> (N, out, 2H, 2W).
    """
    taps = _widened(weight, _UP).transpose(0, 1)
    return F.conv_transpose2d(x, taps, bias, stride=2, padding=1)


def convolve_and_downsample(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """downsample(conv(x)) for a 3x3 `weight` (out, in, 3, 3) with padding 1: (N, in, 2H, 2W) -> (N, out, H, W).

    The mean of four windows of 3x3 is one window of 4x4.
    """
    return F.conv2d(x, _widened(weight, _DOWN), bias, stride=2, padding=1)


def _widened(weight: Tensor, taps: tuple[tuple[float, ...], ...]) -> Tensor:
    """(out, in, 3, 3) -> (out, in, 4, 4), by `taps` along both axes, in one matrix product."""
    return F.linear(weight.flatten(2), _both_axes(taps, weight.dtype, weight.device)).unflatten(2, (4, 4))


_MATRICES: dict[tuple, Tensor] = {}  # kept, so that no step waits for a copy to the device


def _both_axes(taps: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """`taps` along both axes, (16, 9)."""
    key = taps, dtype, device
    if key in _MATRICES:
        return _MATRICES[key]
    matrix = torch.tensor(taps, dtype=dtype)
    found = torch.kron(matrix, matrix).to(device)
    if type(found) is Tensor:  # not a fake tensor, in `estimate`
        _MATRICES[key] = found
    return found
