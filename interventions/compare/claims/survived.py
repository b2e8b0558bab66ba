"""How long changed runs survive, against unchanged ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from interventions.compare.claims.effects import Effect, interval, mean, pooled_deviation, rows_of, sign, strata_of
from interventions.compare.collect import Comparison, Row
from interventions.compare.lifetimes import collapse_as_controls, kaplan_meier, observed_steps
from interventions.compare.permutation import stratified_logrank_test


def survived_effect(comparison: Comparison, entries: Sequence[str], against: str = "") -> Effect | None:
    """Steps from the branch (or the beginning) to the collapse: the difference of means, restricted to the time in
    which a collapse would be visible in every run of the comparison. p is that of the log-rank test, exact, within
    base runs. Runs that have not ended take no part.

    Args:
        comparison: the study.
        entries: the changed entries, pooled.
        against: an entry from scratch in the place of the unchanged runs.
    """
    strata = strata_of(comparison, _ended(rows_of(comparison, entries)), against)
    strata = [(one, _ended(other)) for one, other in strata]
    strata = [(one, other) for one, other in strata if other]
    if not strata:
        return None
    test = stratified_logrank_test((_times(one), _times(other)) for one, other in strata)
    differences: dict[str, list[float]] = {}
    within = []
    for changed, unchanged in strata:
        horizon = _horizon([*changed, *unchanged])
        within.append([_restricted(row, horizon) for row in unchanged])
        for row in changed:
            own = [other for other in unchanged if other.base == row.base] or unchanged
            usual = mean([_restricted(other, horizon) for other in own])
            differences.setdefault(row.base, []).append(_restricted(row, horizon) - usual)
    effect, low, high = interval([mean(one) for one in differences.values()])
    changed, unchanged = ([row for one in strata for row in one[i]] for i in (0, 1))
    collapsed = sum(row.outcome.collapse is not None for row in changed)
    medians = [_median(rows) for rows in (changed, unchanged)]
    others = sum(row.outcome.collapse is not None for row in unchanged)
    return Effect(
        n=len(differences),
        unit="steps",
        effect=effect,
        low=low,
        high=high,
        middle=median(mean(one) for one in differences.values()),
        p=1.0 if collapse_as_controls(comparison, changed) else test.p,
        toward=-sign(test.excess),
        sizes=[(len(one), len(other)) for one, other in strata],
        deviation=pooled_deviation(within),
        words=f"{collapsed} of {len(changed)} collapsed, median {_steps(medians[0])}; unchanged: {others} of "
        f"{len(unchanged)}, median {_steps(medians[1])}",
        median_ratio=_over_median(medians, unchanged),
        collapsed=(collapsed, len(changed)),
    )


def _ended(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.outcome.at_risk and row.outcome.done]


def _over_median(medians: Sequence[float], unchanged: Sequence[Row]) -> float:
    """The ratio of the medians, or at least as much: a median that is not reached is longer than every time seen."""
    longest = max(observed_steps(row) for row in unchanged)
    below = medians[1] if math.isfinite(medians[1]) else float(longest)
    return medians[0] / below if below else math.nan


def _times(rows: Sequence[Row]) -> list[tuple[float, bool]]:
    return [(observed_steps(row), row.outcome.collapse is not None) for row in rows]


def _horizon(rows: Sequence[Row]) -> float:
    """The first step at which a run is censored; Inf if all collapsed."""
    return min((row.outcome.survived for row in rows if row.outcome.collapse is None), default=math.inf)


def _restricted(row: Row, horizon: float) -> float:
    return float(min(row.outcome.survived, horizon))


def _median(rows: Sequence[Row]) -> float:
    """The Kaplan-Meier estimate of the median time to collapse; Inf if fewer than half collapse."""
    curve = kaplan_meier(rows)
    below = [] if curve is None else curve.quantiles[curve.probabilities <= 0.5]
    return float(below[0]) if len(below) else math.inf


def _steps(value: float) -> str:
    return f"{value:.0f} steps" if math.isfinite(value) else "not reached"
