"""The course of one unchanged run from scratch: what grew before its collapse, what happened at it, how fast it fell.

Section 4 and Appendices F and G.2 describe such courses. "Before" is the time up to the onset; of a run without a
collapse it is the whole run. Spectra are read at every hundredth step, so that a thinned record gives the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from interventions.compare.measures import MEMORY, Numbers, d_loss

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SPACING = 100
"""Steps between the spectra that are read."""
WINDOW = 500
"""Steps after the onset in which an explosion or a jump is looked for, and before it for comparison."""
NEAR = 100
"""Steps over which a loss is averaged."""
EARLY = 0.2
"""The first share of the time before the onset: D's loss "early in training"."""
SETTLED = 0.5
"""The first share of the time before the onset, in which sigma_0 grows from its start, says nothing of spikes."""
FALL = 3.0
"""A run has fallen when the median of three FIDs is this many times its best median."""


def course_numbers(
    frames: Mapping[str, pd.DataFrame], scores: Sequence[Mapping[str, Any]], onset: int | None, last: int
) -> Numbers:
    """Every measure of a run's course. One is None where the record does not hold what it needs.

    Args:
        frames: of `spectra.load`.
        scores: of `interventions.compare.outcome.recorded_scores`.
        onset: the step at which its collapse began; None: it did not collapse.
        last: its last step.
    """
    end = last if onset is None else onset
    numbers = _of_spectra(frames["spectra"], end, onset) | _of_loss(frames["scalars"], end, onset)
    return numbers | _of_memory(frames["scalars"], end) | _of_noise(frames["spectra"], end) | _of_fall(scores, onset)


def _of_spectra(spectra: pd.DataFrame, end: int, onset: int | None) -> Numbers:
    """Growth of sigma_0 before the onset, and its rise after it. The "first" layer is G's linear layer."""
    spectra = spectra[spectra["step"] % SPACING == 0]
    growth = {n: _changes(spectra[spectra["network"] == n], None, end) for n in ("G", "D")}
    first = next((layer for layer in growth["G"] if layer.endswith(".linear")), None)
    others = [value for layer, value in growth["G"].items() if layer != first]
    found: Numbers = {
        "G_first_growth": growth["G"].get(first) if first else None,
        "G_first_growth_over_others": _over(growth["G"].get(first or ""), _median(others)),
        "D_median_growth": _median(growth["D"].values()),
        "D_median_ratio_before": _ratio(spectra[spectra["network"] == "D"], end),
        "G_first_rise_after_over_before": None,
        "D_rise_after_over_before": None,
    }
    if onset is None:
        return found
    before = {n: _changes(spectra[spectra["network"] == n], end - WINDOW, end) for n in ("G", "D")}
    after = {n: _changes(spectra[spectra["network"] == n], end, end + WINDOW, most=True) for n in ("G", "D")}
    found["G_first_rise_after_over_before"] = _over(after["G"].get(first or ""), before["G"].get(first or ""))
    found["D_rise_after_over_before"] = _over(_median(after["D"].values()), _median(before["D"].values()))
    return found


def _changes(spectra: pd.DataFrame, begin: int | None, end: int, *, most: bool = False) -> dict[str, float]:
    """Of each layer: sigma_0 at the last measurement up to `end` (or the largest one), over that at `begin` (the first
    one if None). Layers that were zero, or not measured in time, are missing; what is not finite is Inf."""
    found = {}
    for layer, mine in spectra.groupby("layer", observed=True, sort=False):
        mine = mine[mine["step"] <= end]
        start = mine if begin is None else mine[mine["step"] <= begin]
        mine = mine if begin is None else mine[mine["step"] >= begin]
        if start.empty or len(mine) < 2:
            continue
        value = float(start["sigma0"].iloc[0 if begin is None else -1])
        last = float(mine["sigma0"].max(skipna=False) if most else mine["sigma0"].iloc[-1])
        if value != 0:
            found[str(layer)] = last / value if math.isfinite(last) and math.isfinite(value) else math.inf
    return found


def _ratio(spectra: pd.DataFrame, end: int) -> float | None:
    """The median over layers of sigma_0 / sigma_1 at the last measurement up to `end`."""
    near = spectra[spectra["step"] <= end]
    near = near[(near["step"] == near["step"].max()) & (near[["out", "rest"]].min(axis=1) > 1)]
    return _median(near["ratio"].dropna())


def _of_noise(spectra: pd.DataFrame, end: int) -> Numbers:
    """The noise of D's sigma_0 relative to G's and to that of D's Frobenius norms, and the skewness of its
    steps in the second half of the time."""
    noise: dict[tuple[str, str], list[float]] = {}
    skews = []
    for (network, _), mine in spectra.groupby(["network", "layer"], observed=True, sort=False):
        mine = mine[mine["step"] <= end].sort_values("step")
        thin = mine[mine["step"] % SPACING == 0]
        noise.setdefault((str(network), "sigma0"), []).append(_roughness(thin["sigma0"].to_numpy(float)))
        if "frobenius" in mine:
            noise.setdefault((str(network), "frobenius"), []).append(_roughness(thin["frobenius"].to_numpy(float)))
        if network == "D":
            skews.append(_skewness(mine[mine["step"] > SETTLED * end]))
    middle = {key: _median(values) for key, values in noise.items()}
    return {
        "D_noise_over_G": _over(middle.get(("D", "sigma0")), middle.get(("G", "sigma0"))),
        "D_noise_over_frobenius": _over(middle.get(("D", "sigma0")), middle.get(("D", "frobenius"))),
        "D_step_skewness": _median(skews),
    }


def _roughness(values: np.ndarray) -> float:
    """The deviation of a series' logarithm around its local trend: the root mean square of second differences, over
    sqrt(6), which is the deviation of white noise. NaN for fewer than 8 values or any that is not positive."""
    import numpy as np

    if len(values) < 8 or not (np.isfinite(values) & (values > 0)).all():
        return math.nan
    return float(np.sqrt(np.mean(np.diff(np.log(values), n=2) ** 2) / 6))


def _skewness(layer: pd.DataFrame) -> float:
    """The skewness of a layer's changes between measurements: positive where it jumps up and decays slowly.

    Only a record with at least two measurements per `SPACING` steps tells; of any other it is NaN.
    """
    import numpy as np
    from scipy import stats

    steps, values = layer["step"].to_numpy(), layer["sigma0"].to_numpy(float)
    if len(steps) < 20 or np.median(np.diff(steps)) > SPACING / 2 or not (np.isfinite(values) & (values > 0)).all():
        return math.nan
    return float(stats.skew(np.diff(np.log(values))))


def _of_loss(scalars: pd.DataFrame, end: int, onset: int | None) -> Numbers:
    """D's loss before the onset relative to its early one, and its highest mean after the onset relative to that."""
    loss = d_loss(scalars)
    before, early = _mean(loss, end - NEAR, end), _mean(loss, int(EARLY * end / 2), int(EARLY * end))
    found: Numbers = {
        "D_loss_before": before,
        "D_loss_before_over_early": _over(before, early),
        "D_loss_jump": None,
    }
    if onset is not None:
        means = [_mean(loss, at, at + NEAR) for at in range(end, end + WINDOW, NEAR // 2)]
        known = [one for one in means if one is not None]
        found["D_loss_jump"] = (
            _over(max(known, key=lambda v: math.inf if math.isnan(v) else v), before) if known else None
        )
    return found


def _mean(loss: pd.Series, begin: int, end: int) -> float | None:
    """The mean of the steps in (begin, end]; None if none of them is known."""
    mine = loss[(loss.index > begin) & (loss.index <= end)]
    return float(mine.mean(skipna=False)) if len(mine) else None


def _of_memory(scalars: pd.DataFrame, end: int) -> Numbers:
    """D's accuracies on fixed images, and how well it tells training from validation images, at the last view before
    the onset."""
    found: Numbers = {}
    for name in ("D/accuracy/train", "D/accuracy/val", *MEMORY):
        mine = scalars[(scalars["name"] == name) & (scalars["step"] <= end)]
        found[f"{name}_before"] = float(mine["value"].iloc[-1]) if len(mine) else None
    return found


def _of_fall(scores: Sequence[Mapping[str, Any]], onset: int | None) -> Numbers:
    """Steps from the onset until FID is `FALL` times its best, and their share of the steps before; and the worst FID
    after the onset relative to the best before."""
    import numpy as np

    found: Numbers = {"fall_steps": None, "fall_share": None, "fall_depth": None}
    raw = [one for one in scores if one["weights"] == "raw" and "fid" in one]
    if onset is None or len(raw) < 3:
        return found
    fids = np.array([one["fid"] if not math.isnan(one["fid"]) else math.inf for one in raw])
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(fids, 3), axis=1)  # centred
    steps = np.array([one["step"] for one in raw])[1:-1]
    if not (steps <= onset).any() or not (steps > onset).any():
        return found
    best = float(smooth[steps <= onset].min())
    fallen = steps[(steps > onset) & (smooth >= FALL * best)]
    found["fall_depth"] = float(smooth[steps > onset].max()) / best
    if len(fallen):
        found["fall_steps"] = float(fallen[0] - onset)
        found["fall_share"] = float(fallen[0] - onset) / onset if onset else math.inf
    return found


def _median(values: Any) -> float | None:
    """The median of what is not NaN; None if nothing is."""
    import numpy as np

    known = [float(value) for value in values if not math.isnan(value)]
    return float(np.median(known)) if known else None


def _over(value: float | None, other: float | None) -> float | None:
    """The quotient; None if one of the two is not known or the divisor is 0."""
    return None if value is None or not other else value / other
