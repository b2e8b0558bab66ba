"""Detectors of problems in recorded series: spikes and explosions of sigma0, what goes wrong with a loss.

Each detector is a small class that takes one value after the other while a network trains (`update`, which returns a
`Finding` or None), and a function over a finished series that gives the same findings. `spectra.detect.thresholds`
defines what counts as a finding; every threshold can be set by name. The detectors do not depend on the source of a
series: `spectra.detect.registry` lists which series of a record are searched.

`AnyLoss` is for a loss of any scale, `LossJump` for one of the order of 1 with a number at every step.

NaN and Inf never raise. A singular value that is not finite is itself a finding (`explosion`), so is a loss: at once
(`loss_jump` of `LossJump`), or where it stays so (`loss_not_finite` of `AnyLoss`).
Elsewhere such a value is ignored, as if nothing had been measured.
"""

from spectra.detect.any_loss import AnyLoss, loss_troubles
from spectra.detect.finding import Finding
from spectra.detect.loss import LossJump, loss_jumps
from spectra.detect.losses import TrainingLosses
from spectra.detect.sigma import Explosions, Spikes, explosions, spikes

__all__ = [
    "AnyLoss",
    "Explosions",
    "Finding",
    "LossJump",
    "Spikes",
    "TrainingLosses",
    "explosions",
    "loss_jumps",
    "loss_troubles",
    "spikes",
]
