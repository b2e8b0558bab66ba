"""When `spectra.detect` calls something a finding: every threshold, with its reason. Each may be given by name.

The table is that of tests/campaigns/test_detectors.py: synthetic series whose answer is known, kind x noise x size. The
recorded runs are those in notebooks/data.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CollapseThresholds:
    """Of `spectra.detect.Collapse`. Spread is a share of the real images', so that 1 is as varied as these."""

    fid_window: int = 5
    """The FID's level is a running median of so many evaluations: single ones jump by 1.2 to 1.4 times, and up to 8
    times in recorded runs, without any change in the pictures."""
    fid_window_late: int = 9
    """And of more, a fifth of all that there were, up to so many: the best of many medians of five is a lucky one. In
    the table 8 % of healthy series of 160 evaluations were called collapsed against medians of five, 1 % so."""
    spread_window: int = 3
    """The best spread is one of medians of three, which keep one odd evaluation out."""
    healthy: float = 0.3
    """A generator that never reached this spread has not been healthy: runs that keep their modes stay at 0.65 to 0.85,
    and those that lose them early have passed 0.3 at most briefly."""
    full: float = 0.8
    """Spread above this counts as this: a young generator's noise spreads up to 1.6, and losing that is no collapse."""
    spread_lost: float = 0.5
    """Of its best spread a collapsed generator has at most this share left: healthy ones kept 0.75 and more of theirs
    once they had it, those that lost modes ended at a tenth."""
    fid_worse: float = 2.0
    """And FID, where spread stays, is at least so many times its best: medians of recorded branches that did not
    collapse were for a while up to 2.2 times their best so far, collapses reach 3 to 40 times."""
    patience: float = 2.5
    """So much evidence is enough. A spread that is lost is 1 of it an evaluation, and a FID by how many doublings it is
    too high: 4 times the best is 1. In the table 90 % of falls to 3 times the best are said within 5 or 6 evaluations
    (2 evaluations at 10 times), and no healthy series of 360 is called collapsed; 2.2 called one of them so."""
    most_evidence: float = 1.5
    """No single evaluation is more than this, so two are the least: an outlier alone, however large, is none."""
    lasting: int = 15
    """A collapse that has not ended so many evaluations after it could be said is for good. FIDs that swing by 1.5 to 4
    times within 24 evaluations, the slowest of the table, are up for half of that; of dips of five none was lasting."""
    latency: int = 5
    """What begins within so many evaluations of the end of a series may not be said by then: in the table 90 % of the
    falls to 3 times the best are said within so many (70 % where evaluations are few), and all deep ones."""
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
    """A rise counts above the median of so many values too: coming back from a dip is none. Under heavy-tailed noise
    half of the table's quiet series had false spikes, most of them of this kind or of the next."""
    least_length: int = 2
    """So many measurements must lie above half of its height: a single one may be an outlier. With both, none had, and
    98 % of the true spikes were found."""
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
    """Growth is the median rate of so many steps from measurement to measurement: one jump alone is none, and so is
    what has not risen by half as much without its steepest step."""
    rise: float = 0.2
    """Least rise of log sigma0 over the window, about 22 %."""
    long_window: int = 20
    """The same over a longer time, which tells a slower growth from noise: of growth by 3 % a measurement under noise
    of 3 % the short window alone found three in four, both all, and log sigma0 as t^3 was said after 81 % of the
    series, by both after 64 %."""
    long_rise: float = 0.4
    """Least rise over it."""
    factor: float = 3.0
    """And so many times the slowest of the layer's usual rates: sigma0 grows through all of training (Section 4.1), and
    a usual rate of late would follow a growth that gets faster by and by: log sigma0 as t^3 was no explosion by it."""
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
    """The level after it is the median of so many, so that bursts of less than half of it are none. While D learns the
    images of a G that stands still, its loss is near 0 but for bursts of 3 to 8 steps, which a median of five called
    jumps (8 in the small study's freeze-G branches); with 20, two bursts that follow each other still are one."""
    least: float = 0.5
    """Least rise of a jump: the hinge loss of a discriminator that knows nothing is 2."""
    factor: float = 0.3
    """And so much of the level before: 2 to 3 is a jump, where noise is small."""
    scales: float = 2.5
    """And so many robust standard deviations of the steps before: of the median of 30 steps it is more than ten."""
    block: int = 50
    """A climb is followed from one median of so many steps to the next: over 1,000 steps a window just before it
    would climb along."""
    climb: int = 2000
    """It may take so many steps."""
    least_climb: float = 2.0
    """Least rise of a climb: a D that wins and is caught up with goes from near 0 to 2 at most, and drifts by 0.7."""


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
