"""Which layers to look at, and why: a score for each layer, as a sum over named reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from spectra.detect.finding import Finding

SCORING = (
    "A layer's score is the sum of its reasons' points: 100 for a sigma_0 or Frobenius norm that is not finite, 50 for "
    "an explosion, 40 for a gradient that is not finite, 15 for one that is 0 at the end, 10 and more for spikes, 20 "
    "for each factor of e by which sigma_0 grew more than the median layer of its network, 30 for each in the last "
    "fifth of the run, 10 for each factor of e by which sigma_0 or the stable rank shrank to less than half, 3 for "
    "sigma_0 / sigma_1 above 3 and 6 for each further factor of e, 5 for each "
    "factor of 10 by which its gradient lies more than a factor of 10 from the median layer's, 10 for an estimate of "
    "Spectral Normalization that is more than 5 % off, 5 for singular values that did not converge."
)


@dataclass(frozen=True)
class Growth:
    """A layer's sigma_0 over the run: its first and last finite values, and how it grew in the last fifth."""

    layer: str
    network: str
    kind: str
    shape: str
    first: float
    last: float
    factor: float
    late_factor: float


@dataclass(frozen=True)
class Noteworthy:
    """A layer to look at: its score, and the reasons, the weightiest first."""

    growth: Growth
    score: float
    reasons: tuple[str, ...]


def growths(spectra: pd.DataFrame) -> list[Growth]:
    """Of each layer, those that grew most first; without two finite values the factors are NaN, and the layer is at the
    end."""
    found = []
    for layer, rows in spectra.groupby("layer", observed=True, sort=False):
        values, steps = rows.sigma0.to_numpy(), rows.step.to_numpy()
        sound = np.isfinite(values) & (values > 0)
        values, steps = values[sound], steps[sound]
        one = rows.iloc[0]
        shape = f"{one.out} x {one.rest}" if one.out else ""
        first, last = (float(values[0]), float(values[-1])) if len(values) else (math.nan, math.nan)
        late = values[steps >= _last_fifth(spectra)]
        factors = (last / first if len(values) > 1 else math.nan, last / float(late[0]) if len(late) > 1 else math.nan)
        found.append(Growth(str(layer), str(one.network), str(one.kind), shape, first, last, *factors))
    return sorted(found, key=lambda one: -one.factor if math.isfinite(one.factor) else math.inf)


def noteworthy_layers(
    frames: Mapping[str, pd.DataFrame], findings: Sequence[Finding] = (), most: int = 10
) -> list[Noteworthy]:
    """The layers with the highest scores, at most `most`; a layer without a reason is not among them.

    Args:
        frames: those of `spectra.load`.
        findings: those of `spectra.detect_run`, for spikes and explosions.
        most: how many.
    """
    spectra = frames["spectra"]
    if spectra.empty:
        return []
    known = growths(spectra)
    recorded = [name for name in ("sigma0", "frobenius") if spectra[name].notna().any()]  # NaN may stand for nothing
    if "sigma0" not in recorded and spectra.converged.notna().any():
        recorded.append("sigma0")
    usual = {network: _usual([g for g in known if g.network == network]) for network in {g.network for g in known}}
    gradients = _gradients_by_layer(frames["gradients"], [g.layer for g in known])
    rows_of = dict(list(spectra.groupby("layer", observed=True, sort=False)))
    found = []
    for growth in known:
        rows = rows_of[growth.layer]
        reasons = [
            *_broken(rows, recorded),
            *_found(growth.layer, findings),
            *_grown(growth, *usual[growth.network]),
            *_shape_of_spectrum(rows),
            *_gradient(*gradients[growth.layer]),
        ]
        if reasons:
            reasons.sort(key=lambda reason: -reason[0])
            score = sum(points for points, _ in reasons)
            found.append(Noteworthy(growth, score, tuple(words for _, words in reasons)))
    return sorted(found, key=lambda one: -one.score)[:most]


Reasons = list[tuple[float, str]]


def _usual(known: Sequence[Growth]) -> tuple[float, float]:
    """The median factors of growth, over the run and in its last fifth; of fewer than three layers: none is usual."""
    if len(known) < 3:
        return 1.0, 1.0
    return _median([one.factor for one in known]), _median([one.late_factor for one in known])


def _broken(rows: pd.DataFrame, recorded: Sequence[str]) -> Reasons:
    found: Reasons = []
    for quantity in recorded:
        words = {"sigma0": "sigma_0", "frobenius": "the Frobenius norm"}[quantity]
        values = rows[quantity].to_numpy()
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            what, step = ("infinite" if np.isinf(values[bad[0]]) else "NaN"), rows.step.to_numpy()[bad[0]]
            found.append((100.0, f"{words} is {what} at step {step:,} ({len(bad)} of {len(values)} measurements)"))
            break
    poor = int(((rows.converged == 0) & (rows.guarantee != "tracked")).sum())
    if poor:
        found.append((5.0, f"the singular values did not converge in {poor} of {len(rows)} measurements"))
    return found


def _found(layer: str, findings: Sequence[Finding]) -> Reasons:
    """Explosions and spikes that name the layer."""
    mine = [one for one in findings if isinstance(layers := one.details.get("layers"), Mapping) and layer in layers]
    explosions = [one for one in mine if one.kind == "explosion"]
    spikes = [one for one in mine if one.kind == "spike"]
    found: Reasons = []
    if explosions:
        found.append((50.0, f"an explosion of sigma_0 from step {explosions[0].onset:,} on"))
    if spikes:
        height, peak = max((s.details["layers"][layer]["height"], s.details["layers"][layer]["peak"]) for s in spikes)
        count = "a spike" if len(spikes) == 1 else f"{len(spikes)} spikes, the highest"
        found.append((10 + 10 * math.log(height), f"{count} of {height:.3g} times at step {peak:,}"))
    return found


def _grown(growth: Growth, usual: float, usual_late: float) -> Reasons:
    found: Reasons = []
    excess = _log(growth.factor / usual)
    if excess > 0.1 and growth.factor > 1.1:
        where = growth.network or "the network"
        words = f"sigma_0 grew {growth.factor:.3g} times (the median layer of {where}: {usual:.3g})"
        found.append((20 * excess, words))
    late, usual_late = _log(growth.late_factor), max(_log(usual_late), 0)
    if late > 0.1 and late > usual_late + 0.05:
        found.append((30 * (late - usual_late), f"it grew {growth.late_factor:.3g} times in the last fifth"))
    if growth.factor < 0.5:
        found.append((-10 * _log(growth.factor), f"sigma_0 shrank to {growth.factor:.3g} of what it was"))
    return found


def _shape_of_spectrum(rows: pd.DataFrame) -> Reasons:
    found: Reasons = []
    ratio = _last_finite(rows.ratio)
    if ratio > 3:
        found.append((6 * math.log(ratio / 3) + 3, f"one direction dominates: sigma_0 is {ratio:.3g} times sigma_1"))
    ranks = rows.stable_rank.to_numpy()
    ranks = ranks[np.isfinite(ranks) & (ranks > 0)]
    if len(ranks) > 1 and ranks[-1] < ranks[0] / 2:
        words = f"the stable rank fell from {ranks[0]:.3g} to {ranks[-1]:.3g}"
        found.append((10 * math.log(ranks[0] / ranks[-1]), words))
    lag = _last_finite(rows.sigma_lag)
    if abs(lag) > 0.05:
        side = "below" if lag > 0 else "above"
        found.append((10.0, f"Spectral Normalization's estimate is {abs(lag):.0%} {side} sigma_0"))
    return found


def _gradient(norms: np.ndarray, steps: np.ndarray, usual: float) -> Reasons:
    """Of its gradient's norms, and the median of all layers' over the last fifth."""
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        what = "infinite" if np.isinf(norms[bad[0]]) else "NaN"
        return [(40.0, f"its gradient is {what} at step {steps[bad[0]]:,} ({len(bad)} of {len(norms)} measurements)")]
    if not len(norms) or not usual > 0:
        return []
    mine = float(np.median(norms[-max(1, len(norms) // 5) :]))
    if mine == 0:
        return [(15.0, "its gradient is 0 at the end")]
    distance = abs(math.log10(mine / usual))
    if distance <= 1:
        return []
    side = "above" if mine > usual else "below"
    return [(5 * distance, f"its gradient is a factor of {10**distance:,.0f} {side} the median layer's")]


def _gradients_by_layer(
    gradients: pd.DataFrame, layers: Sequence[str]
) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """Gradient norms and steps of each layer's largest parameter, its weight; and the usual norm in its network."""
    nothing = (np.zeros(0), np.zeros(0, np.int64), math.nan)
    if gradients.empty:
        return dict.fromkeys(layers, nothing)
    recorded = gradients[gradients.gradient_norm.notna() | gradients.relative_update.isna()]
    by_name = {
        str(name): (rows.gradient_norm.to_numpy(), rows.step.to_numpy(), str(rows.network.iloc[0]))
        for name, rows in recorded.groupby("parameter", observed=True, sort=False)
    }
    late = recorded[recorded.step >= _last_fifth(recorded)]
    usual = {
        str(network): _median(rows.gradient_norm.tolist()) for network, rows in late.groupby("network", observed=True)
    }
    found = {}
    for layer in layers:
        names = [n for n in (layer, f"{layer}.weight", f"{layer}.weight_orig") if n in by_name]
        names += [n for n in by_name if n.startswith(f"{layer}.")]
        norms, steps, network = by_name[names[0]] if names else (*nothing[:2], "")
        found[layer] = (norms, steps, usual.get(network, math.nan))
    return found


def _last_fifth(frame: pd.DataFrame) -> float:
    """The step at which the last fifth of the recorded steps begins."""
    first, last = int(frame.step.min()), int(frame.step.max())
    return last - (last - first) / 5


def _last_finite(values: pd.Series) -> float:
    array = values.to_numpy()
    array = array[np.isfinite(array)]
    return float(array[-1]) if len(array) else math.nan


def _median(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.median(finite)) if finite else math.nan


def _log(value: float) -> float:
    return math.log(value) if value > 0 and math.isfinite(value) else math.nan
