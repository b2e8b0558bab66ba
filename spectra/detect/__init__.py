"""What goes wrong in training, found in its series: spikes, explosions, jumps of D's loss, a dead D, collapse.

Each is a small class to be given one value after the other while a run trains (`update`, which returns a `Finding` or
None), and a function over finished series that gives the very same answers. When something is a finding stands in
`spectra.detect.thresholds`; every threshold may be given by name. Nothing here knows where a series comes from.

NaN and Inf never raise. A loss or a singular value that is not finite is a finding of its own (`loss_jump`,
`explosion`: what they name has happened); elsewhere such a value is left out, as if nothing had been measured.
"""

from spectra.detect.collapse import Collapse, CollapseJudgement, collapse, judge_collapse
from spectra.detect.discriminator import DeadDiscriminator, dead_discriminator, explosions, loss_jumps, spikes
from spectra.detect.finding import Finding
from spectra.detect.loss import LossJump
from spectra.detect.sigma import Explosions, Spikes

__all__ = [
    "Collapse",
    "CollapseJudgement",
    "DeadDiscriminator",
    "Explosions",
    "Finding",
    "LossJump",
    "Spikes",
    "collapse",
    "dead_discriminator",
    "explosions",
    "judge_collapse",
    "loss_jumps",
    "spikes",
]
