"""The configuration of how the same mathematics is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from biggan.config.fields import Section, setting


@dataclass(frozen=True)
class SpeedConfig(Section):
    """How the same function is computed faster. Each switch but `tf32` and `precision` moves the last bits, none a
    formula."""

    narrow_skips: bool = setting(False)
    """Convolve a block's 1x1 skip at the lower resolution: before G's upsampling, after D's pooling (a quarter of the
    work)."""
    merged_resampling: bool = setting(False)
    """Nearest upsampling and its 3x3 convolution as one transposed 4x4, a 3x3 convolution and its average pooling as
    one 4x4 of stride 2 (4/9 of the multiplications)."""
    channels_last: bool = setting(False)
    """Keep images, maps and filters with the channel as the fastest index, as most convolution kernels prefer."""
    batched_power_iteration: bool = setting(False)
    """Normalize all weights of a network together, with fewer operators and passes over them."""
    compile: bool = setting(False)
    """Compile both networks with `torch.compile` (the first steps take minutes); D not where the gradient of a penalty
    on its gradient is wanted, which compiled code does not have."""
    tf32: bool = setting(False)
    """Allow TF32, which keeps 10 of float32's 23 bits, to the convolutions and matrix products of both networks'
    updates on an Ampere or later GPU: errors near 1e-3. Sampling, evaluation and the monitor never use it."""
    precision: Literal["float32", "bfloat16", "float16"] = setting("float32")
    """Of the networks' forwards and backwards. Weights, Spectral Normalization, BatchNorm's statistics, logits, losses,
    penalties, sampling and evaluation stay in float32; float16's losses are scaled, its overflowing updates skipped."""
