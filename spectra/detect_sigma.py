"""Spikes and explosions of sigma0, found online. Public as `spectra.detect.Spikes` and `Explosions`."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from statistics import median
from typing import Any

from spectra.findings import Finding, Pace, robust
from spectra.thresholds import ExplosionThresholds, SpikeThresholds


class Spikes:
    """Spikes of one network's sigma0: a jump, then a slow decay (Section 4.2, Figure 29).

    Layers whose spikes overlap in time are one finding, given when all of them have decayed, or have not in a long time
    (then it was a step to a new level). Its details hold, by layer, `height` (the peak over the value before, a ratio),
    `peak` (a step), `decay` (steps from the peak until half of the height in log sigma0 was gone; None: it was not)
    and `onset`; and `height`, the largest.

    Measurements much denser than usual (a burst) refine a spike's peak and decay, and are left out of what is usual.

    Args:
        thresholds: fields of `spectra.thresholds.SpikeThresholds`.
    """

    def __init__(self, **thresholds: float) -> None:
        self.at = SpikeThresholds(**thresholds)  # type: ignore[arg-type]
        self._layers: dict[str, _Line] = {}
        self._over: dict[str, dict[str, Any]] = {}

    def update(self, step: int, values: Mapping[str, float]) -> Finding | None:
        """sigma0 by layer, as measured at one step; what is not finite or not positive is left out."""
        for layer, value in values.items():
            line = self._layers.setdefault(layer, _Line(self.at))
            if 0 < value < math.inf and (spike := line.update(step, math.log(value))):
                before = self._over.get(layer)
                self._over[layer] = spike if before is None or spike["height"] > before["height"] else before
        if not self._over or any(line.jump for line in self._layers.values()):
            return None
        layers, self._over = self._over, {}
        onset, height = min(s["onset"] for s in layers.values()), max(s["height"] for s in layers.values())
        return Finding("spike", step, onset, {"height": height, "layers": layers})


class _Line:
    """One layer's log sigma0, watched for a spike."""

    def __init__(self, at: SpikeThresholds) -> None:
        self.at, self.pace, self.jump = at, Pace(), None
        self._last: deque[tuple[int, float]] = deque(maxlen=at.rise)
        self._usual: deque[float] = deque(maxlen=at.history)
        self.jump: dict[str, Any] | None = None

    def update(self, step: int, log: float) -> dict[str, Any] | None:
        """The spike that ended at this step."""
        if self.jump is not None:
            return self._follow(step, log)
        if not self.pace.takes(step):
            return None
        if len(self._last) == self.at.rise:
            rise = log - self._last[0][1]
            if self._is_jump(rise):
                self.jump = self._begin(step, log)
                return None
            self._usual.append(rise)
        self._last.append((step, log))
        return None

    def _is_jump(self, rise: float) -> bool:
        if rise <= self.at.jump or len(self._usual) < self.at.least_history:
            return False
        centre, scale = robust(self._usual)
        return rise > centre + self.at.scales * scale

    def _begin(self, step: int, log: float) -> dict[str, Any]:
        """The spike begins before the steepest of the last rises."""
        path = [*self._last, (step, log)]
        steepest = max(range(len(path) - 1), key=lambda i: path[i + 1][1] - path[i][1])
        onset, base = path[steepest]
        peak, top = max(path[steepest + 1 :], key=lambda point: point[1])
        return {"onset": onset, "base": base, "peak": peak, "top": top}

    def _follow(self, step: int, log: float) -> dict[str, Any] | None:
        assert self.jump is not None
        spike = self.jump
        if log > spike["top"]:
            spike["peak"], spike["top"] = step, log
        height = spike["top"] - spike["base"]
        decayed = log <= spike["top"] - self.at.decayed * height
        if not decayed and step - spike["onset"] <= self.at.patience * self.pace.gap:
            return None
        self.jump = None
        self.pace.restart(step)
        self._last.clear()
        self._last.append((step, log))
        decay = step - spike["peak"] if decayed else None
        return {"onset": spike["onset"], "peak": spike["peak"], "height": math.exp(height), "decay": decay}


class Explosions:
    """Spectral explosion: sigma0 of some layers grows much faster than it used to (Figures 3a and 20).

    A finding names the `layers` that begin to explode at this step, each with its `rate` and its `usual_rate` (of log
    sigma0, a step) and `sigma0`. A layer is named again only when it has come to rest in between. A sigma0 that is NaN
    or infinite is an explosion at once, and then has `sigma0` as text and no rates.

    Args:
        thresholds: fields of `spectra.thresholds.ExplosionThresholds`.
    """

    def __init__(self, **thresholds: float) -> None:
        self.at = ExplosionThresholds(**thresholds)  # type: ignore[arg-type]
        self._layers: dict[str, _Growth] = {}

    def update(self, step: int, values: Mapping[str, float]) -> Finding | None:
        """sigma0 by layer, as measured at one step; zeros are left out."""
        found, onset = {}, step
        for layer, value in values.items():
            explosion = self._layers.setdefault(layer, _Growth(self.at)).update(step, value)
            if explosion is not None:
                onset = min(onset, explosion.pop("onset"))
                found[layer] = explosion
        return Finding("explosion", step, onset, {"layers": found}) if found else None


class _Growth:
    """One layer's rate of growth against its own history."""

    def __init__(self, at: ExplosionThresholds) -> None:
        self.at, self.pace = at, Pace()
        self._points: deque[tuple[int, float]] = deque(maxlen=at.window + 1)
        self._usual: deque[float] = deque(maxlen=at.history)
        self._exploding = self._broken = False

    def update(self, step: int, value: float) -> dict[str, Any] | None:
        if not math.isfinite(value):
            broken, self._broken = self._broken, True
            last = self._points[-1][0] if self._points else step
            return None if broken else {"onset": last, "sigma0": str(value)}
        self._broken = False
        if value <= 0 or not self.pace.takes(step):
            return None
        if len(self._points) == self._points.maxlen and not self._exploding:
            (early, low), (later, high) = self._points[0], self._points[1]
            self._usual.append((high - low) / (later - early))
        self._points.append((step, math.log(value)))
        if len(self._points) < self.at.window + 1 or len(self._usual) < self.at.least_history:
            return None
        return self._judge(step, value)

    def _judge(self, step: int, value: float) -> dict[str, Any] | None:
        points = list(self._points)
        steps = pairwise(points)
        rate = median((high - low) / (later - early) for (early, low), (later, high) in steps)
        span = points[-1][0] - points[0][0]
        if not self._exploding and rate * span <= self.at.rise:
            return None
        centre, scale = robust(self._usual)
        limit = max(centre + self.at.scales * scale, self.at.factor * centre)
        if self._exploding:
            self._exploding = rate > limit / 2
            return None
        self._exploding = rate > limit
        if not self._exploding:
            return None
        return {"onset": points[0][0], "sigma0": value, "rate": rate, "usual_rate": centre}
