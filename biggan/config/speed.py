"""The configuration of how the same mathematics is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from biggan.config.fields import Section, setting


@dataclass(frozen=True)
class SpeedConfig(Section):
    """Faster ways to compute the same function. All but `tf32` and `precision` change rounding only."""

    narrow_skips: bool = setting(False)
    """Convolve 1x1 skips at the lower resolution: before G's upsampling, after D's pooling (a quarter of the work)."""
    fused_resampling: bool = setting(False)
    """Fuse resampling with its convolution, with 4/9 of the multiplications: nearest upsampling and its 3x3 convolution
    become one transposed 4x4 convolution, and a 3x3 convolution and its average pooling one 4x4 of stride 2."""
    channels_last: bool = setting(False)
    """Store images, feature maps and filters with the channel as the fastest index, which most convolution kernels
    prefer."""
    batched_power_iteration: bool = setting(False)
    """Normalize all weights of a network together, with fewer operators and fewer passes over the weights."""
    compile: bool = setting(False)
    """Compile both networks with `torch.compile` (the first steps take minutes). With a gradient penalty D is not
    compiled,
    because compiled code has no second derivatives."""
    tf32: bool = setting(False)
    """Allow TF32 (10 of float32's 23 bits, errors near 1e-3) in the convolutions and matrix products of updates, on an
    Ampere or later GPU. Sampling, evaluation and the monitor never use it."""
    precision: Literal["float32", "bfloat16", "float16"] = setting("float32")
    """Precision of the networks' passes. Weights, Spectral Normalization, BatchNorm's statistics, logits, losses,
    penalties, sampling and evaluation stay in float32. With float16, losses are scaled and overflowing
    updates skipped."""
