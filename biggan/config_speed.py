"""The configuration of how the same mathematics is computed."""

from __future__ import annotations

from dataclasses import dataclass

from biggan.settings import Section, setting


@dataclass(frozen=True)
class SpeedConfig(Section):
    """How the same function is computed faster. Each switch moves the last bits, none a formula."""

    narrow_skips: bool = setting(False)
    """Convolve a block's 1x1 skip at the lower resolution: before G's upsampling, after D's pooling (a quarter of the
    work)."""
    merged_resampling: bool = setting(False)
    """Nearest upsampling and its 3x3 convolution as one transposed 4x4, a 3x3 convolution and its average pooling as
    one 4x4 of stride 2 (4/9 of the multiplications)."""
    channels_last: bool = setting(False)
    """Keep images, maps and filters with the channel as the fastest index, as most convolution kernels prefer."""
