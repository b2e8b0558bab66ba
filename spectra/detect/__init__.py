"""What goes wrong in training, found in its series: spikes and explosions of sigma0, jumps of a loss.

Each is a small class that takes one value after the other while a network trains (`update`, which returns a `Finding`
or None), and a function over finished series that gives the same answers. `spectra.detect.thresholds` says what counts
as a finding; every threshold may be given by name. Nothing here knows where a series comes from: which series of a
record are searched is said in `spectra.detect.registry`.

NaN and Inf never raise. A loss or a singular value that is not finite is a finding of its own (`loss_jump`,
`explosion`: what they name has happened); elsewhere such a value is left out, as if nothing had been measured.
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
