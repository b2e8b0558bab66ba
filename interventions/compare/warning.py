"""Early warning: which recorded series tell a coming collapse from healthy training, by one threshold for all runs.

For each series, over all runs of a study: a point is positive if the run's collapse begins within the next
`WARNING_SHARE` of its healthy time, and negative if it is healthy for longer. The area under the ROC curve is out of
sample: the series' direction and threshold are taken from the other base runs. The step number is judged in the same
way, because whatever grows with time looks like a warning where all runs collapse at about the same step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interventions.compare.collect import Comparison, Row
from interventions.compare.course import SPACING
from interventions.compare.measures import d_loss

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

WARNING_SHARE = 0.1
"""The window before an onset in which a warning is due, as a share of the run's steps up to the onset."""
SKIPPED = 0.1
"""The first share of a run, in which it has not learnt anything yet, is left out."""
DRAWS = 1000
"""Bootstrap draws of base runs for the interval."""

SIGMA = "largest sigma_0 in G"


@dataclass(frozen=True)
class WarningSign:
    """How well one series warns of a collapse, out of sample.

    Attributes:
        runs, bases, collapsed: runs with the series, their base runs, and how many of the runs collapsed.
        auc, low, high: area under the ROC curve, and its 95 % interval by a bootstrap over base runs; NaN: not known.
        clock: the area of the step number over the same points.
        above: whether it warns above the threshold (False: below).
        threshold: the one that all base runs together choose (Youden's J).
        warned: share of the collapsing runs whose first alarm comes within the window.
        early: share of the collapsing runs whose first alarm comes before the window.
        missed: share of the collapsing runs without an alarm up to the onset.
        false_alarms: share of the runs without a collapse that have an alarm; NaN if there are none.
        lead: median steps from the first alarm to the onset, over collapsing runs with an alarm.
    """

    series: str
    runs: int
    bases: int
    collapsed: int
    auc: float
    low: float
    high: float
    clock: float
    above: bool
    threshold: float
    warned: float
    early: float
    missed: float
    false_alarms: float
    lead: float


@dataclass(frozen=True)
class _Course:
    """One run's points up to its onset, or up to the last step whose future is known."""

    base: str
    steps: np.ndarray
    values: np.ndarray
    positive: np.ndarray
    onset: int | None


def warning_signs(comparison: Comparison, names: Sequence[str] | None = None) -> list[WarningSign]:
    """Every series of `SERIES` (or `names`), the best first. Runs that had collapsed before they began do not count."""
    rows = [row for row in comparison.rows if row.outcome.at_risk and row.outcome.done]
    found = []
    for name in SERIES if names is None else names:
        courses = [one for row in rows if (one := _course(comparison, row, SERIES[name])) is not None]
        if courses:
            found.append(_judge(name, courses))
    return sorted(found, key=lambda sign: -sign.auc if not math.isnan(sign.auc) else 1.0)


def _course(comparison: Comparison, row: Row, read: Callable[[Mapping[str, Any]], pd.Series | None]) -> _Course | None:
    import numpy as np

    try:
        series = read(comparison.frames(row.outcome.path))
    except FileNotFoundError:  # a run without a record warns of nothing
        return None
    if series is None or series.empty:
        return None
    series = series[~series.index.duplicated(keep="last")].sort_index()
    onset, end = row.outcome.collapse, row.outcome.judged_until
    healthy = onset if onset is not None else end
    if healthy is None:
        return None
    ahead = WARNING_SHARE * healthy
    last = healthy if onset is not None else healthy - ahead
    first = max(row.outcome.begin, SKIPPED * healthy)
    steps = np.arange(math.ceil(first / SPACING) * SPACING, last + 1, SPACING)
    places = np.searchsorted(series.index.to_numpy(), steps, side="right") - 1
    known = (places >= 0) & (steps - series.index.to_numpy()[np.maximum(places, 0)] < SPACING)
    steps, places = steps[known], places[known]
    if not len(steps):
        return None
    positive = steps > healthy - ahead if onset is not None else np.zeros(len(steps), bool)
    return _Course(row.base, steps, series.to_numpy(float)[places], positive, onset)


def _judge(name: str, courses: Sequence[_Course]) -> WarningSign:
    bases = list(dict.fromkeys(one.base for one in courses))
    clocks = [_Course(one.base, one.steps, one.steps.astype(float), one.positive, one.onset) for one in courses]
    scored = _out_of_sample(courses, bases)
    auc, low, high = _with_interval(scored, bases)
    above, threshold = _threshold(courses)
    alarms = [_first_alarm(one, *_threshold(_others(courses, one.base) or courses)) for one in courses]
    leads = [one.onset - alarm for one, alarm in zip(courses, alarms, strict=True) if one.onset is not None and alarm]
    collapsing = [(one, alarm) for one, alarm in zip(courses, alarms, strict=True) if one.onset is not None]
    healthy = [alarm is not None for one, alarm in zip(courses, alarms, strict=True) if one.onset is None]
    within = [alarm is not None and alarm > one.onset * (1 - WARNING_SHARE) for one, alarm in collapsing if one.onset]
    return WarningSign(
        series=name, runs=len(courses), bases=len(bases), collapsed=len(collapsing), auc=auc, low=low, high=high,
        clock=_auc(_out_of_sample(clocks, bases)), above=above, threshold=threshold, warned=_share(within),
        early=_share([alarm is not None for _, alarm in collapsing]) - _share(within),
        missed=_share([alarm is None for _, alarm in collapsing]), false_alarms=_share(healthy), lead=_middle(leads),
    )  # fmt: skip


def _others(courses: Sequence[_Course], base: str) -> list[_Course]:
    return [one for one in courses if one.base != base]


def _out_of_sample(courses: Sequence[_Course], bases: Sequence[str]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(Base, scores, labels) of each run: its values, turned as the other base runs say."""
    turned = {base: 1.0 if _auc_of(_others(courses, base) or courses) >= 0.5 else -1.0 for base in bases}
    return [(one.base, turned[one.base] * _ranked(one.values), one.positive) for one in courses]


def _ranked(values: np.ndarray) -> np.ndarray:
    """NaN is the loudest warning: a run whose numbers broke."""
    import numpy as np

    return np.where(np.isnan(values), np.inf, values)


def _auc_of(courses: Sequence[_Course]) -> float:
    auc = _auc([(one.base, _ranked(one.values), one.positive) for one in courses])
    return 0.5 if math.isnan(auc) else auc


def _auc(scored: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> float:
    """The area under the ROC curve (Mann-Whitney, ties count half) over the points of all runs; NaN without both."""
    import numpy as np
    from scipy.stats import rankdata

    values, labels = (np.concatenate([one[i] for one in scored]) for i in (1, 2))
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not positive or not negative:
        return math.nan
    ranks = rankdata(values)
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _with_interval(
    scored: Sequence[tuple[str, np.ndarray, np.ndarray]], bases: Sequence[str]
) -> tuple[float, float, float]:
    """The area, and percentiles of it over draws of base runs with replacement; none for fewer than three bases."""
    import numpy as np

    auc = _auc(scored) if len(bases) > 1 else math.nan  # nothing is left out of one
    if len(bases) < 3 or math.isnan(auc):
        return auc, math.nan, math.nan
    mine = {base: [one for one in scored if one[0] == base] for base in bases}
    random = np.random.default_rng(0)
    drawn = [[one for base in random.choice(bases, len(bases)) for one in mine[str(base)]] for _ in range(DRAWS)]
    found = [value for one in drawn if not math.isnan(value := _auc(one))]
    low, high = np.percentile(found, [2.5, 97.5])
    return auc, float(low), float(high)


def _threshold(courses: Sequence[_Course]) -> tuple[bool, float]:
    """(Whether it warns above it, the threshold) of the largest Youden's J: rate of hits minus rate of false alarms."""
    import numpy as np

    above = _auc_of(courses) >= 0.5
    sign = 1.0 if above else -1.0
    values = np.concatenate([sign * _ranked(one.values) for one in courses])
    labels = np.concatenate([one.positive for one in courses])
    if not labels.any() or labels.all():
        return above, math.nan
    order = np.argsort(-values, kind="stable")
    gain = np.cumsum(np.where(labels[order], 1 / labels.sum(), -1 / (~labels).sum()))
    last = np.append(values[order][1:] != values[order][:-1], True)  # equal values are on one side
    place = int(np.argmax(np.where(last, gain, -np.inf)))
    return above, float(sign * values[order][place])


def _first_alarm(one: _Course, above: bool, threshold: float) -> int | None:
    """The step of the first value at or beyond the threshold."""
    values = _ranked(one.values)
    crossed = values >= threshold if above else values <= threshold
    return int(one.steps[crossed][0]) if crossed.any() else None


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else math.nan


def _middle(values: Sequence[float]) -> float:
    import numpy as np

    return float(np.median(values)) if values else math.nan


# The series, each read from the frames of `spectra.load`.


def _largest(network: str, column: str) -> Callable[[Mapping[str, Any]], pd.Series | None]:
    def read(frames: Mapping[str, Any]) -> pd.Series | None:
        mine = frames["spectra"]
        mine = mine[(mine["network"] == network) & (mine[["out", "rest"]].min(axis=1) > 1)]
        return mine.groupby("step")[column].max() if len(mine) else None

    return read


def _first_layer(frames: Mapping[str, Any]) -> pd.Series | None:
    mine = frames["spectra"]
    mine = mine[mine["layer"].astype(str) == "G.linear"]
    return mine.set_index("step")["sigma0"] if len(mine) else None


def _scalar(name: str) -> Callable[[Mapping[str, Any]], pd.Series | None]:
    def read(frames: Mapping[str, Any]) -> pd.Series | None:
        mine = frames["scalars"]
        mine = mine[mine["name"] == name]
        return mine.set_index("step")["value"] if len(mine) else None

    return read


def _loss(frames: Mapping[str, Any]) -> pd.Series | None:
    import numpy as np
    import pandas as pd

    loss = d_loss(frames["scalars"])
    if loss.empty:
        return None
    means = loss.groupby(np.ceil(loss.index.to_numpy() / SPACING) * SPACING).mean()
    return pd.Series(means.to_numpy(), means.index.astype(int))


def _embedding(frames: Mapping[str, Any]) -> pd.Series | None:
    mine = frames.get("embeddings")
    if mine is None or mine.empty:
        return None
    mine = mine[mine["network"] == "G"]
    norms = mine.groupby("step")["class_norm"]
    return norms.max() / norms.median() if len(mine) else None


def _score(name: str) -> Callable[[Mapping[str, Any]], pd.Series | None]:
    def read(frames: Mapping[str, Any]) -> pd.Series | None:
        import pandas as pd

        from interventions.compare.outcome import recorded_scores

        mine = [one for one in recorded_scores(frames["events"]) if one["weights"] == "raw" and name in one]
        return pd.Series([one[name] for one in mine], [one["step"] for one in mine]) if mine else None

    return read


SERIES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    SIGMA: _largest("G", "sigma0"),
    "sigma_0 of G's first layer": _first_layer,
    "largest sigma_0 / sigma_1 in G": _largest("G", "ratio"),
    "largest sigma_0 in D": _largest("D", "sigma0"),
    "variance of G's gradient norms": _scalar("gradient_variance/G"),
    "variance of D's gradient norms": _scalar("gradient_variance/D"),
    "D's loss": _loss,
    "D's memorization (AUC of training against validation images)": _scalar("D/auc/train_val"),
    "D right on training images": _scalar("D/accuracy/train"),
    "D tells real from fake (AUC)": _scalar("D/auc/real_fake"),
    "largest class embedding over the median": _embedding,
    "spread within a class": _score("spread_share"),
    "FID": _score("fid"),
}
"""Name -> the series by step, or None where it was not recorded. A new series is one line here."""
