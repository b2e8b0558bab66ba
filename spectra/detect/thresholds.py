"""The thresholds of `spectra.detect`, each with its reason. Each can be set by name.

"The table" is that of tests/campaigns/test_detectors.py: synthetic series with known answers, kind x noise x size. The
recorded runs are those in notebooks/data.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpikeThresholds:
    """Thresholds of `spectra.detect.Spikes`. Lengths are in measurements at the series' usual distance."""

    rise: int = 3
    """Most measurements that a jump may take: measured at every step, it builds up over a few updates."""
    jump: float = 0.2
    """Least rise of log sigma0, about 22 %: in runs of the default size that went well, rises between measurements 20
    to 50 steps apart stayed below 0.16 after the first steps."""
    scales: float = 6.0
    """Least rise above the layer's usual rise, in robust standard deviations."""
    level: int = 9
    """Number of values whose median the rise must also exceed, because the recovery from a dip is not a rise. Under
    heavy-tailed noise half of the table's quiet series had false spikes, most of them of this kind or of the next."""
    least_length: int = 2
    """Least number of measurements above half of the height, because a single one may be an outlier. With both rules no
    quiet series had a false spike, and 98 % of the true spikes were found."""
    history: int = 50
    """Number of recent rises that define the usual rise."""
    least_history: int = 12
    """Least number of rises before anything counts as a jump: in the first steps everything grows."""
    decayed: float = 0.5
    """Share of its height, in log sigma0, that must be gone for a spike to be over."""
    patience: int = 60
    """Measurements after which a spike that has not decayed is a new level, with unknown decay."""


@dataclass(frozen=True)
class ExplosionThresholds:
    """Thresholds of `spectra.detect.Explosions`. Lengths are in measurements at the series' usual distance."""

    window: int = 5
    """Number of measurement intervals whose median rate is the growth. A single jump is not growth, nor is a rise that
    shrinks to less than half without its steepest step."""
    rise: float = 0.2
    """Least rise of log sigma0 over the window, about 22 %."""
    long_window: int = 20
    """A longer window, which separates slower growth from noise. With growth of 3 % per measurement under noise of 3 %,
    the short window alone found three in four explosions, both windows all. With log sigma0 growing as t^3, the short
    window alone reported it after 81 % of the series, both after 64 %."""
    long_rise: float = 0.4
    """Least rise of log sigma0 over the longer window."""
    factor: float = 3.0
    """Least rate as a multiple of the slowest of the layer's usual rates. sigma0 grows through all of training (Section
    4.1). The recent usual rate would follow a gradual acceleration: log sigma0 growing as t^3 was then no explosion."""
    scales: float = 4.0
    """Least rate above the usual one, in robust standard deviations."""
    history: int = 60
    """Number of rates that define the usual rate."""
    least_history: int = 12
    """Least number of rates before anything counts as an explosion."""


@dataclass(frozen=True)
class LossJumpThresholds:
    """Thresholds of `spectra.detect.LossJump`. Lengths are in steps; the numbers suit a loss of the order of 1."""

    window: int = 200
    """Number of steps whose median is the level before the jump."""
    least_window: int = 200
    """Least number of steps before anything counts as a jump: the first steps go up and down."""
    recent: int = 30
    """Number of steps whose median is the level after the jump, so bursts shorter than half of it do not count. A
    network
    that fits its data exactly has a loss near 0 except for bursts of 3 to 8 steps. A median of five counted these as
    jumps; with 20, only two bursts in close succession still count as one."""
    least: float = 0.5
    """Least rise of a jump."""
    factor: float = 0.3
    """Least rise as a share of the level before: 2 to 3 is a jump if noise is small."""
    scales: float = 2.5
    """Least rise in robust standard deviations of the steps before; for the median of 30 steps it is more than ten."""
    block: int = 50
    """Number of steps per median when following a climb: over 1,000 steps, a window just before it would climb
    along."""
    climb: int = 2000
    """Most steps that a climb may take."""
    least_climb: float = 2.0
    """Least rise of a climb: slow drifts by 0.7 are common."""


@dataclass(frozen=True)
class AnyLossThresholds:
    """Thresholds of `spectra.detect.AnyLoss`. Lengths are in values; nothing depends on the loss's unit.

    "The table" is that of tests/campaigns/test_any_loss.py: losses of eleven kinds that do not go wrong and of five
    that do, under three kinds of noise. Of the kinds that do not, nine had no false alarm in 36 series for each noise;
    with bursts of up to eight values one in nine to one in three series had one, and random walks one in four.
    """

    recent: int = 30
    """Number of values whose median is the level now, so bursts shorter than half of it do not count."""
    window: int = 200
    """Number of values before them whose median is the level before a jump."""
    least_window: int = 60
    """Least number of these."""
    factor: float = 0.1
    """Least rise of a jump as a share of the level before."""
    share: float = 0.1
    """Least rise of a jump as a share of the progress since the beginning: of a loss that came from 11 to 3, 0.8."""
    scales: float = 2.5
    """Least rise in robust standard deviations of the values before; for a median of 30 values that is eleven."""
    above_highest: float = 2.0
    """Least rise as a multiple of the highest of the earlier rises: a loss that wanders, as one that another network
    works against, rises often."""
    history: int = 60
    """Number of earlier rises, one every `recent` values."""
    least_history: int = 6
    """Least number of them."""
    clear: float = 5.0
    """Progress counts as such from this many robust standard deviations of the values at the lowest level on."""
    lost: float = 0.9
    """Share of the progress whose loss is a divergence: of a classifier that falls back to guessing."""
    climb: int = 1000
    """Most values that a divergence may take: one that takes longer is a drift, common in a loss that another network
    works against."""
    blow_up: float = 20.0
    """Rise from the lowest level, as a multiple of the largest of the first level, the lowest, the progress and the
    noise, that is a divergence whatever the progress was. A generator's loss from 0.7 to 8 rises by 10."""
    patience: int = 10
    """Number of values in a row that are NaN or Inf."""
