"""When `spectra.detect` calls something a finding: every threshold, with its reason. Each may be given by name.

The table is that of tests/campaigns/test_detectors.py: synthetic series whose answer is known, kind x noise x size. The
recorded runs are those in notebooks/data.
"""

from __future__ import annotations

from dataclasses import dataclass


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
    """Of `spectra.detect.LossJump`. Lengths are in steps; the numbers suit a loss of the order of 1."""

    window: int = 200
    """The level before the jump is the median of so many steps."""
    least_window: int = 200
    """Until there are so many, nothing is a jump: the first steps go up and down."""
    recent: int = 30
    """The level after it is the median of so many, so that bursts of less than half of it are none. A network that
    fits its data exactly has a loss near 0 but for bursts of 3 to 8 steps, which a median of five called jumps; with
    20, two bursts that follow each other still are one."""
    least: float = 0.5
    """Least rise of a jump."""
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
    """Least rise of a climb: slow drifts by 0.7 are common."""
