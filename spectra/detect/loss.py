"""Jumps of a loss, found online. Public as `spectra.detect.LossJump`."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from statistics import median, quantiles

from spectra.detect.finding import Finding
from spectra.detect.thresholds import LossJumpThresholds


class LossJump:
    """A low loss that rises and stays high: within a few steps (a jump), or over many (a climb).

    Single bad batches do not count, nor do bursts shorter than half of `recent` steps. A finding has the medians
    `before` and `after`. A loss that is not finite is a finding at once, with `after` as text. The next finding is
    possible after the loss has fallen by half of the rise, or has settled at its new level.

    Args:
        thresholds: fields of `spectra.detect.thresholds.LossJumpThresholds`.
    """

    def __init__(self, **thresholds: float) -> None:
        self.at = LossJumpThresholds(**thresholds)  # type: ignore[arg-type]
        self._jump, self._climb = _Jump(self.at), _Climb(self.at)
        self._last: int | None = None
        self._broken = False
        self._low_again = math.nan  # the loss at which half of a rise is gone; NaN: there was none

    def update(self, step: int, loss: float) -> Finding | None:
        """The loss of one step."""
        if not math.isfinite(loss):
            broken, self._broken = self._broken, True
            onset = step if self._last is None else self._last
            return None if broken else Finding("loss_jump", step, onset, {"after": str(loss)})
        self._broken, self._last = False, step
        found = [self._jump.update(step, loss), self._climb.update(step, loss)]
        if not math.isnan(self._low_again):
            if self._jump.level > self._low_again and not self._climb.stands:
                return None
            self._low_again = math.nan
            self._climb.restart()
            return None
        for rise in found:
            if rise is not None:
                onset, before, after = rise
                self._low_again = (before + min(after, self._jump.level)) / 2
                self._climb.restart()
                return Finding("loss_jump", step, onset, {"before": before, "after": after})
        return None


class _Jump:
    """The median of some steps against that of many before them."""

    def __init__(self, at: LossJumpThresholds) -> None:
        self.at = at
        self.level = math.inf
        self._recent: deque[tuple[int, float]] = deque(maxlen=at.recent)
        self._before: deque[tuple[int, float]] = deque()
        self._sorted: list[float] = []

    def update(self, step: int, loss: float) -> tuple[int, float, float] | None:
        """The onset and the levels before and after, if the second is far enough above the first."""
        if len(self._recent) == self.at.recent:
            self._remember(self._recent[0])
        self._recent.append((step, loss))
        self.level = median(value for _, value in self._recent)
        if len(self._before) < self.at.least_window:
            return None
        place = len(self._sorted)
        before = self._sorted[place // 2]
        scale = (self._sorted[3 * place // 4] - self._sorted[place // 4]) / 1.349
        if self.level - before <= max(self.at.least, self.at.factor * abs(before), self.at.scales * scale):
            return None
        onset = self._last_before(before)
        return onset, before, median([value for step, value in self._recent if step > onset] or [self.level])

    def _last_before(self, before: float) -> int:
        """The last step of the level before: the split at which the two levels fit best."""
        points = [*list(self._before)[-self.at.recent :], *self._recent]
        fit, best, onset = 0.0, 0.0, points[0][0]
        for step, value in points:
            fit += abs(value - before) - abs(value - self.level)  # falls while the level is that before
            if fit <= best:
                best, onset = fit, step
        return onset

    def _remember(self, point: tuple[int, float]) -> None:
        if len(self._before) == self.at.window:
            del self._sorted[bisect_left(self._sorted, self._before.popleft()[1])]
        self._before.append(point)
        insort(self._sorted, point[1])


class _Climb:
    """The median of a block of steps against the lowest of the blocks before it."""

    def __init__(self, at: LossJumpThresholds) -> None:
        self.at = at
        self._block: list[float] = []
        self._levels: deque[tuple[int, float]] = deque(maxlen=at.climb // at.block)
        self._least = -(-at.least_window // at.block)  # blocks

    def restart(self) -> None:
        """Continue from the current level."""
        self._block.clear()
        self._levels.clear()

    @property
    def stands(self) -> bool:
        """Whether the last few blocks were at one level."""
        levels = [level for _, level in self._levels][-self._least :]
        if len(levels) < self._least:
            return False
        return max(levels) - min(levels) <= max(self.at.least, self.at.factor / 4 * abs(levels[-1]))

    def update(self, step: int, loss: float) -> tuple[int, float, float] | None:
        """As `_Jump.update`."""
        self._block.append(loss)
        if len(self._block) < self.at.block:
            return None
        low, after, high = quantiles(self._block, n=4)
        scale, self._block = (high - low) / 1.349, []
        self._levels.append((step, after))
        before = min(level for _, level in self._levels)
        rise = max(self.at.least_climb, self.at.factor * abs(before), self.at.scales * scale)
        if len(self._levels) < self._least or after - before <= rise:
            return None
        return max(step for step, level in self._levels if level <= before + self.at.least), before, after


def loss_jumps(steps: Sequence[int], loss: Sequence[float], **thresholds: float) -> list[Finding]:
    """`LossJump` over the whole series of a loss."""
    detector = LossJump(**thresholds)
    return [f for step, value in zip(steps, loss, strict=True) if (f := detector.update(int(step), float(value)))]
