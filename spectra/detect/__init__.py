"""Detectors of problems in recorded series: spikes and explosions of sigma0, jumps of a loss.

Each detector is a small class that takes one value after the other while a network trains (`update`, which returns a
`Finding` or None), and a function over a finished series that gives the same findings. `spectra.detect.thresholds`
defines what counts as a finding; every threshold can be set by name. The detectors do not depend on the source of a
series: `spectra.detect.registry` lists which series of a record are searched.

NaN and Inf never raise. A loss or singular value that is not finite is itself a finding (`loss_jump`, `explosion`).
Elsewhere such a value is ignored, as if nothing had been measured.
"""

from spectra.detect.finding import Finding
from spectra.detect.loss import LossJump, loss_jumps
from spectra.detect.sigma import Explosions, Spikes, explosions, spikes

__all__ = [
    "Explosions",
    "Finding",
    "LossJump",
    "Spikes",
    "explosions",
    "loss_jumps",
    "spikes",
]
