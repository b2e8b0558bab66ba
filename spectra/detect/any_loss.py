"""What goes wrong with any loss, found online: jumps, divergence, values that stay NaN or Inf. Public as
`spectra.detect.AnyLoss`."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from statistics import median

from spectra.detect.finding import Finding, robust
from spectra.detect.thresholds import AnyLossThresholds


class AnyLoss:
    """One loss of a training, of any scale and sign. At most one finding a value:

    - `loss_jump`: the median of the last values lies far above that of the values before, judged by the loss's noise,
      its progress since the beginning, its own size, and how much it rose before;
    - `divergence`: nearly all the progress since the beginning is lost, or the loss has grown to many times its scale;
    - `loss_not_finite`: it has been NaN or Inf for a while. Single such values are skipped, as those of a step that
      loss scaling left out.

    A jump and a divergence have the medians `before` and `after` in their details. Each is told again only after the
    loss has come down by half of the rise; a jump also after it has settled at its new level, and none while a
    divergence lasts. All lengths are in values: a loss that is logged at every 500 steps needs as many as another.

    Args:
        thresholds: fields of `spectra.detect.thresholds.AnyLossThresholds`.
    """

    def __init__(self, **thresholds: float) -> None:
        self.at = AnyLossThresholds(**thresholds)  # type: ignore[arg-type]
        self._levels = _Levels(self.at)
        self._rises: deque[float] = deque(maxlen=self.at.history)
        self._last: int | None = None
        self._broken = 0  # values in a row that are not finite
        self._well_until: int | None = None  # the last step before those
        self._jumped: tuple[float, int] | None = None  # the loss at which half of a jump is gone; values since then
        self._diverged: float | None = None  # the loss at which half of a divergence is gone

    def update(self, step: int, loss: float) -> Finding | None:
        """The loss of one step, which may be NaN or Inf."""
        if not math.isfinite(loss):
            return self._not_finite(step, loss)
        self._broken, self._last = 0, step
        levels = self._levels
        ended_block = levels.take(step, loss)
        if not levels.known:
            return None
        found = None
        if levels.before is not None:
            found = self._jump(step, levels.level - levels.before, ended_block)
        return self._divergence(step) or found

    def _jump(self, step: int, rise: float, ended_block: bool) -> Finding | None:
        levels = self._levels
        assert levels.before is not None
        is_high = rise > self._least_rise(levels.before)
        if self._jumped is not None:
            half, values = self._jumped
            over = levels.level <= half or (values >= self.at.window and not is_high)
            self._jumped = None if over else (half, values + 1)
            return None
        if is_high and self._diverged is None:
            self._jumped = ((levels.before + levels.level) / 2, 0)
            return Finding("loss_jump", step, levels.onset(), {"before": levels.before, "after": levels.level})
        if ended_block:
            self._rises.append(rise)
        return None

    def _divergence(self, step: int) -> Finding | None:
        levels = self._levels
        if self._diverged is not None:
            self._diverged = None if levels.level <= self._diverged else self._diverged
            return None
        onset = self._lost_since()
        if onset is None:
            return None
        self._diverged = (levels.low + levels.level) / 2
        return Finding("divergence", step, onset, {"before": levels.low, "after": levels.level})

    def _not_finite(self, step: int, loss: float) -> Finding | None:
        if self._broken == 0:
            self._well_until = step if self._last is None else self._last
        self._broken += 1
        if self._broken != self.at.patience:
            return None
        assert self._well_until is not None
        return Finding("loss_not_finite", step, self._well_until, {"value": str(loss), "values": self._broken})

    def _least_rise(self, before: float) -> float:
        """Of a jump: infinite until enough is known of how much the loss usually rises."""
        if len(self._rises) < self.at.least_history:
            return math.inf
        levels = self._levels
        return max(
            self.at.factor * abs(before),
            self.at.share * levels.progress,
            self.at.scales * levels.noise,
            self.at.above_highest * max(self._rises),
        )

    def _lost_since(self) -> int | None:
        """The last step of the lowest level, where nearly all progress since the beginning is lost, or more."""
        levels = self._levels
        rise, progress = levels.level - levels.low, levels.progress
        if rise <= self.at.lost * progress:
            return None
        last_low = levels.last_low()
        if last_low is None:  # longer ago than a divergence may take
            return None
        onset, noise = last_low
        if progress > self.at.clear * noise and rise > self.at.scales * noise:
            return onset
        return onset if rise > self.at.blow_up * max(abs(levels.low), abs(levels.first), progress, noise) else None


class _Levels:
    """Medians of a loss: of the last values, of many before them, of the first ones, and the lowest.

    Attributes:
        level: the median of the last `recent` values.
        before: the median of up to `window` values before those; None until there are enough.
        noise: the robust standard deviation of these.
        first, low: the level of the first block of `recent` values, and the lowest of any block.
        known: whether there was a whole block.
    """

    def __init__(self, at: AnyLossThresholds) -> None:
        self.at = at
        self.level = self.first = self.low = math.inf
        self.before: float | None = None
        self.noise = 0.0
        self.known = False
        self._values = 0
        self._recent: deque[tuple[int, float]] = deque(maxlen=at.recent)
        self._before: deque[tuple[int, float]] = deque()
        self._sorted: list[float] = []
        self._blocks: deque[tuple[int, float, float]] = deque(maxlen=max(2, at.climb // at.recent))

    @property
    def progress(self) -> float:
        """How far the loss has come down since the beginning."""
        return max(self.first - self.low, 0.0)

    def take(self, step: int, loss: float) -> bool:
        """Take a value; whether it ends a block of `recent` values."""
        if len(self._recent) == self.at.recent:
            self._remember(self._recent[0])
        self._recent.append((step, loss))
        self._values += 1
        self.level = median(value for _, value in self._recent)
        place = len(self._sorted)
        if place >= self.at.least_window:
            self.before = self._sorted[place // 2]
            self.noise = (self._sorted[3 * place // 4] - self._sorted[place // 4]) / 1.349
        if self._values % self.at.recent:
            return False
        _, noise = robust(value for _, value in self._recent)
        self._blocks.append((step, self.level, max(noise, self.noise)))
        if not self.known:
            self.known, self.first = True, self.level
        self.low = min(self.low, self.level)
        return True

    def onset(self) -> int:
        """The last step of the level before: the split at which the two levels fit best."""
        assert self.before is not None
        points = [*list(self._before)[-self.at.recent :], *self._recent]
        fit, best, onset = 0.0, 0.0, points[0][0]
        for step, value in points:
            fit += abs(value - self.before) - abs(value - self.level)  # falls while the level is that before
            if fit <= best:
                best, onset = fit, step
        return onset

    def last_low(self) -> tuple[int, float] | None:
        """Of the last block within a tenth of the way from the lowest level to the present one: its end, and the noise
        then. None where no block of the last `climb` values is."""
        near = self.low + (self.level - self.low) / 10
        return max(((step, noise) for step, level, noise in self._blocks if level <= near), default=None)

    def _remember(self, point: tuple[int, float]) -> None:
        if len(self._before) == self.at.window:
            del self._sorted[bisect_left(self._sorted, self._before.popleft()[1])]
        self._before.append(point)
        insort(self._sorted, point[1])


def loss_troubles(steps: Sequence[int], loss: Sequence[float], **thresholds: float) -> list[Finding]:
    """`AnyLoss` over the whole series of a loss."""
    detector = AnyLoss(**thresholds)
    return [f for step, value in zip(steps, loss, strict=True) if (f := detector.update(int(step), float(value)))]
