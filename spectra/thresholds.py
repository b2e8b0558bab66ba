"""When `spectra.detect` calls something a finding: every threshold, with its reason. Each may be given by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CollapseThresholds:
    """Of `spectra.detect.Collapse`. Spread is a share of the real images', so that 1 is as varied as these."""

    fid_window: int = 5
    """FID is a running median of so many evaluations: single ones jump by 1.2 to 1.4 times, and up to 2.4 times,
    without any change in the pictures."""
    fid_window_late: int = 9
    """And of more, a fifth of all that there were, up to so many: the best of many medians is a lucky one."""
    spread_window: int = 3
    """The best spread is one of medians of three, which keep one odd evaluation out."""
    healthy: float = 0.3
    """A generator that never reached this spread has not been healthy: runs that keep their modes stay at 0.65 to 0.85,
    and those that lose them early have passed 0.3 at most briefly."""
    full: float = 0.8
    """Spread above this counts as this: the noise of a generator that has learnt nothing yet spreads up to 1.6."""
    spread_lost: float = 0.5
    """Of its best spread a collapsed generator has at most this share left: healthy ones kept 0.75 and more of theirs
    once they had it, those that lost modes ended at a tenth."""
    fid_worse: float = 2.0
    """And FID, where spread stays, is at least so many times its best: medians of healthy runs ended at most 1.3 times
    above theirs, the paper's collapses at ten times."""
    patience: float = 3
    """So much evidence is enough. A spread that is lost is 1 of it an evaluation, and a FID by how many doublings it is
    too high: 4 times the best is 1."""
    most_evidence: float = 1.5
    """No single evaluation is more than this."""
    lasting: int = 15
    """A collapse that has not ended so many evaluations after it could be said is for good."""
    latency: int = 5
    """What begins within so many evaluations of the end of a series may not be said by then."""
    modeless: float = 0.15
    """At this spread a generator draws about one picture a class, whatever it had before."""
    stale: int = 10
    """It never got its modes, and is not merely young, when so many evaluations have brought no better FID."""
    better: float = 0.98
    """A FID counts as better below this share of the best: a run that creeps on is still learning."""
    modeless_alone: int = 20
    """Where no FID is computed: so many evaluations without modes."""


@dataclass(frozen=True)
class SpikeThresholds:
    """Of `spectra.detect.Spikes`. Lengths are in measurements at the series' usual distance."""

    rise: int = 3
    """A jump may take so many measurements: at every step it builds up over a few updates."""
    jump: float = 0.2
    """Least rise of log sigma0, about 22 %: in runs of the default size that went well, rises between measurements 20
    to 50 steps apart stayed below 0.16 after the first steps."""
    scales: float = 6.0
    """And so many robust standard deviations above the layer's usual rise."""
    level: int = 9
    """A rise counts above the median of so many values too: coming back from a dip is none."""
    least_length: int = 2
    """So many measurements must lie above half of its height: a single one may be an outlier."""
    history: int = 50
    """How many rises say what is usual."""
    least_history: int = 12
    """Until there are so many, nothing is a jump: in the first steps everything grows."""
    decayed: float = 0.5
    """A spike is over when so much of its height, in log sigma0, is gone."""
    patience: int = 60
    """What has not decayed after so many measurements is a new level, and its decay is unknown."""


@dataclass(frozen=True)
class ExplosionThresholds:
    """Of `spectra.detect.Explosions`. Lengths are in measurements at the series' usual distance."""

    window: int = 5
    """Growth is the median rate of so many steps from measurement to measurement: one jump alone is none."""
    rise: float = 0.2
    """Least rise of log sigma0 over the window, about 22 %."""
    long_window: int = 20
    long_rise: float = 0.4
    """The same over a longer time, which tells a slower growth from noise."""
    factor: float = 3.0
    """And so many times the slowest of the layer's usual rates: sigma0 grows through all of training (Section 4.1), and
    a usual rate of late would follow a growth that gets faster by and by."""
    scales: float = 4.0
    """And so many robust standard deviations above it."""
    history: int = 60
    """How many rates say what is usual."""
    least_history: int = 12
    """Until there are so many, nothing is an explosion."""


@dataclass(frozen=True)
class LossJumpThresholds:
    """Of `spectra.detect.LossJump`. Lengths are in steps."""

    window: int = 200
    """The level before the jump is the median of so many steps."""
    least_window: int = 200
    """Until there are so many, nothing is a jump: a D that wins the first steps is soon caught up with."""
    recent: int = 30
    """The level after it is the median of so many."""
    least: float = 0.5
    """Least rise: the hinge loss of a discriminator that knows nothing is 2."""
    factor: float = 0.3
    """And so much of the level before."""
    scales: float = 2.5
    """And so many robust standard deviations of the steps before."""
    block: int = 50
    """A climb is followed from one median of so many steps to the next."""
    climb: int = 2000
    """It may take so many steps."""
    least_climb: float = 2.0
    """Least rise of a climb."""


@dataclass(frozen=True)
class DeadDiscriminatorThresholds:
    """Of `spectra.detect.DeadDiscriminator`."""

    patience: int = 100
    """So many values in a row."""
    spread: float = 1e-2
    """A batch's logits are constant where their standard deviation is at most this; the hinge margin is 1."""
    loss: float = 1e-3
    """A loss stands still where it stays within this, relative to itself or to 1."""
    winning: float = 0.999
    """A discriminator that is right on so many of both kinds has won, and is not dead."""
