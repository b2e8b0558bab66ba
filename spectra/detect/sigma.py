"""Spikes and explosions of sigma0, found online. Public as `spectra.detect.Spikes` and `Explosions`."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from spectra.detect.finding import Finding, Pace, robust
from spectra.detect.thresholds import ExplosionThresholds, SpikeThresholds


class Spikes:
    """Spikes of one network's sigma0: a jump, then a slow decay (Section 4.2, Figure 29).

    Layers whose spikes overlap in time are one finding. It is given when all of them have decayed, or when some have
    not
    decayed for a long time (a step to a new level). Its details hold, by layer, `height` (the peak over the value
    before, a ratio),
    `peak` (a step), `decay` (steps from the peak until half of the height in log sigma0 was gone; None: it was not)
    and `onset`; and `height`, the largest.

    Measurements much denser than usual (a burst) refine a spike's peak and decay, but do not change the usual values.

    Args:
        thresholds: fields of `spectra.detect.thresholds.SpikeThresholds`.
    """

    def __init__(self, **thresholds: float) -> None:
        self.at = SpikeThresholds(**thresholds)  # type: ignore[arg-type]
        self._layers: dict[str, _Line] = {}
        self._over: dict[str, dict[str, Any]] = {}

    def update(self, step: int, values: Mapping[str, float]) -> Finding | None:
        """sigma0 by layer, as measured at one step. Values that are not finite or not positive are ignored.

        Such a value, or a missing layer, ends the spike of that layer.
        """
        for layer in values:
            self._layers.setdefault(layer, _Line(self.at))
        for layer, line in self._layers.items():
            value = values.get(layer)
            if value is not None and 0 < value < math.inf:
                spike = line.update(step, math.log(value))
            else:
                spike = line.go_on_without(step, broken=value is not None)
            if spike:
                before = self._over.get(layer)
                self._over[layer] = spike if before is None or spike["height"] > before["height"] else before
        if not self._over or (any(line.jump for line in self._layers.values()) and not self._is_late(step)):
            return None
        layers, self._over = self._over, {}
        onset, height = min(s["onset"] for s in layers.values()), max(s["height"] for s in layers.values())
        return Finding("spike", step, onset, {"height": height, "layers": layers})

    def unfinished(self) -> dict[str, dict[str, Any]]:
        """The jumps that go on at the last step: `onset`, and the `height` so far; without those that may still be an
        outlier."""
        found = {name: jump for name, line in self._layers.items() if (jump := line.unfinished()) is not None}
        return {**found, **{name: spike for name, spike in self._over.items() if name not in found}}

    def _is_late(self, step: int) -> bool:
        """Whether the decayed layers have waited long enough for those that have not decayed."""
        return any(step - s["onset"] > self.at.patience * self._layers[n].pace.gap for n, s in self._over.items())


class _Line:
    """One layer's log sigma0, watched for a spike."""

    def __init__(self, at: SpikeThresholds) -> None:
        self.at, self.pace = at, Pace()
        self._last: deque[tuple[int, float]] = deque(maxlen=at.rise)
        self._levels: deque[float] = deque(maxlen=at.level)
        self._usual: deque[float] = deque(maxlen=at.history)
        self.jump: dict[str, Any] | None = None

    def update(self, step: int, log: float) -> dict[str, Any] | None:
        """The spike that ended at this step."""
        if self.jump is not None:
            return self._follow(step, log)
        if not self.pace.takes(step):
            return None
        if len(self._last) == self.at.rise:
            # A value that recovers from a dip has not risen, so it must also be above the level.
            rise = log - max(self._last[0][1], median(self._levels))
            if self._is_jump(rise):
                self.jump = self._begin(step, log)
                return None
            self._usual.append(rise)
        self._last.append((step, log))
        self._levels.append(log)
        return None

    def go_on_without(self, step: int, *, broken: bool) -> dict[str, Any] | None:
        """A step without a value: because it is `broken` (not a finite, positive number), or was not measured."""
        if self.jump is None or not (broken or self._is_old(step)):
            return None
        return self._end(step, self.jump["top"], None)

    def unfinished(self) -> dict[str, Any] | None:
        """The jump that goes on, if it is longer than an outlier."""
        if self.jump is None or self._high_values() < self.at.least_length:
            return None
        return {"onset": self.jump["onset"], "height": math.exp(self.jump["top"] - self.jump["base"])}

    def _high_values(self) -> int:
        """How many values of the jump lie above what would be its end."""
        assert self.jump is not None
        limit = self.jump["top"] - self.at.decayed * (self.jump["top"] - self.jump["base"])
        return sum(value > limit for _, value in self.jump["path"])

    def _is_jump(self, rise: float) -> bool:
        if rise <= self.at.jump or len(self._usual) < self.at.least_history:
            return False
        centre, scale = robust(self._usual)
        return rise > centre + self.at.scales * scale

    def _begin(self, step: int, log: float) -> dict[str, Any]:
        """The onset: the step before the steepest of the last rises."""
        path = [*self._last, (step, log)]
        steepest = max(range(len(path) - 1), key=lambda i: path[i + 1][1] - path[i][1])
        onset, base = path[steepest]
        base = max(base, median(self._levels))
        peak, top = max(path[steepest + 1 :], key=lambda point: point[1])
        return {"onset": onset, "base": base, "peak": peak, "top": top, "path": path[steepest + 1 :]}

    def _follow(self, step: int, log: float) -> dict[str, Any] | None:
        assert self.jump is not None
        spike = self.jump
        spike["path"].append((step, log))
        if log > spike["top"]:
            spike["peak"], spike["top"] = step, log
        decayed = log <= spike["top"] - self.at.decayed * (spike["top"] - spike["base"])
        if not decayed and not self._is_old(step):
            return None
        return self._end(step, log, step - spike["peak"] if decayed else None)

    def _is_old(self, step: int) -> bool:
        assert self.jump is not None
        return step - self.jump["onset"] > self.at.patience * self.pace.gap

    def _end(self, step: int, log: float, decay: int | None) -> dict[str, Any] | None:
        """End the spike; None if it was too short to distinguish from an outlier."""
        assert self.jump is not None
        high = self._high_values()
        spike, self.jump = self.jump, None
        self.pace.restart(step)
        for old in (self._last, self._levels):
            old.clear()
        self._last.append((step, log))
        self._levels.append(log)
        height = spike["top"] - spike["base"]
        if decay is not None and high < self.at.least_length:
            self._usual.append(height)
            return None
        return {"onset": spike["onset"], "peak": spike["peak"], "height": math.exp(height), "decay": decay}


class Explosions:
    """Spectral explosion: sigma0 of some layers grows much faster than it used to (Figures 3a and 20).

    A finding names the `layers` that begin to explode at this step, each with its `rate` and its `usual_rate` (of log
    sigma0, per step) and `sigma0`. A layer is named again only after its growth has returned to normal. A sigma0 that
    is
    NaN or infinite is an explosion at once, with `sigma0` as text and no rates.

    Args:
        thresholds: fields of `spectra.detect.thresholds.ExplosionThresholds`.
    """

    def __init__(self, **thresholds: float) -> None:
        self.at = ExplosionThresholds(**thresholds)  # type: ignore[arg-type]
        self._layers: dict[str, _Growth] = {}

    def update(self, step: int, values: Mapping[str, float]) -> Finding | None:
        """sigma0 by layer, as measured at one step; zeros are ignored."""
        found, onset = {}, step
        for layer, value in values.items():
            explosion = self._layers.setdefault(layer, _Growth(self.at)).update(step, value)
            if explosion is not None:
                onset = min(onset, explosion.pop("onset"))
                found[layer] = explosion
        return Finding("explosion", step, onset, {"layers": found}) if found else None


class _Growth:
    """One layer's rate of growth against its own history, over a short and a long time."""

    def __init__(self, at: ExplosionThresholds) -> None:
        self.pace = Pace()
        self._rates = [_Rate(at, at.window, at.rise), _Rate(at, at.long_window, at.long_rise)]
        self._last: int | None = None
        self._exploding = self._broken = False

    def update(self, step: int, value: float) -> dict[str, Any] | None:
        if not math.isfinite(value):
            broken, self._broken = self._broken, True
            last = step if self._last is None else self._last
            return None if broken else {"onset": last, "sigma0": str(value)}
        self._broken = False
        if value <= 0 or not self.pace.takes(step):
            return None
        self._last = step
        found = [rate.update(step, math.log(value)) for rate in self._rates]
        was, self._exploding = self._exploding, any(rate.exploding for rate in self._rates)
        new = next((growth for growth in found if growth), None)
        return None if was or new is None else {"sigma0": value, **new}


class _Rate:
    """The median growth rate over a window of measurements, compared with the slowest that it has been."""

    def __init__(self, at: ExplosionThresholds, window: int, rise: float) -> None:
        self.at, self.rise = at, rise
        self.exploding = False
        self._points: deque[tuple[int, float]] = deque(maxlen=window + 1)
        self._fresh: deque[float] = deque()  # rates that overlap with the one that is judged
        self._usual: deque[float] = deque(maxlen=at.history)
        self._slowest = math.inf

    def update(self, step: int, log: float) -> dict[str, Any] | None:
        """Where an explosion begins: its onset and rates."""
        self._points.append((step, log))
        if len(self._points) < self._points.maxlen:  # type: ignore[operator]
            return None
        points = list(self._points)
        rate = median((high - low) / (later - early) for (early, low), (later, high) in pairwise(points))
        if len(self._fresh) == len(points) - 1:
            self._usual.append(self._fresh.popleft())
        if not self.exploding:
            self._fresh.append(rate)
        if len(self._usual) < self.at.least_history:
            return None
        centre, scale = robust(self._usual)
        self._slowest = max(
            0.0, min(self._slowest, centre)
        )  # a decay, such as a spike's, does not count as usual growth
        limit = max(self._slowest + self.at.scales * scale, self.at.factor * self._slowest)
        if self.exploding:
            self.exploding = rate > limit / 2
            return None
        # One jump plus noise can raise the median rate; real growth remains without its steepest step.
        steepest = max(high - low for (_, low), (_, high) in pairwise(points))
        risen = min(log - points[0][1], 2 * (log - points[0][1] - steepest), rate * (step - points[0][0]))
        self.exploding = rate > limit and risen > self.rise
        if not self.exploding:
            return None
        return {"onset": points[0][0], "rate": rate, "usual_rate": self._slowest}


def spikes(steps: Sequence[int], layers: Mapping[str, Sequence[float]], **thresholds: float) -> list[Finding]:
    """`Spikes` over a network's whole series of sigma0, by layer."""
    return _findings(Spikes(**thresholds), steps, layers)


def explosions(steps: Sequence[int], layers: Mapping[str, Sequence[float]], **thresholds: float) -> list[Finding]:
    """`Explosions` over a network's whole series of sigma0, by layer."""
    return _findings(Explosions(**thresholds), steps, layers)


def _findings(
    detector: Spikes | Explosions, steps: Sequence[int], layers: Mapping[str, Sequence[float]]
) -> list[Finding]:
    rows = zip(*layers.values(), strict=True)
    found = (
        detector.update(int(step), dict(zip(layers, map(float, row), strict=True)))
        for step, row in zip(steps, rows, strict=True)
    )
    return [finding for finding in found if finding]
