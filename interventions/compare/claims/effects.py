"""What a study says about one measure: the effect over base runs, and the runs that may be exchanged.

The unit is the base run. Branches are compared within base runs with the unchanged continuations of the same
checkpoint. Runs from scratch are compared with all unchanged runs from scratch, which differ from each other by their
seeds alone; their interval is from differences to the one with the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from interventions.compare.collect import Comparison, Row
from interventions.compare.permutation import doubled_ranks, permutation_p
from interventions.compare.statistics import paired

Sizes = list[tuple[int, int]]
LARGEST_LOG = 709.0
"""The logarithm of the largest number, rounded down."""


@dataclass(frozen=True)
class Effect:
    """What a study says about a claim's measure.

    Attributes:
        n: base runs that it was computed from.
        unit: "ratio" (1: no effect), "steps", "difference", "share" or "correlation".
        effect, low, high: the mean effect over base runs and its 95 % interval; NaN: not known.
        p: exact and two-sided; NaN if there is no null hypothesis, or nothing to compare.
        toward: 1 if the changed runs lie above, -1 if below, 0 if neither.
        middle: the median effect over base runs, for a size where there is no mean; infinite where most of them are.
        sizes: (changed, unchanged) runs of each base run, for the smallest p of the design.
        deviation: the standard deviation of unchanged runs of one base run, in the effect's unit.
        words: what happened, for the reason.
        median_ratio: median time to collapse over the unchanged runs'.
        collapsed: (number, of) of the changed runs that collapsed.
    """

    n: int
    unit: str
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    middle: float = math.nan
    p: float = math.nan
    toward: int = 0
    sizes: Sizes | None = None
    deviation: float = math.nan
    words: str = ""
    median_ratio: float = math.nan
    collapsed: tuple[int, int] = (0, 0)


def rows_of(comparison: Comparison, entries: Sequence[str]) -> list[Row]:
    """The runs of these entries; without entries the unchanged ones from scratch."""
    if entries:
        return [row for row in comparison.rows if row.entry in entries and row.seed is None and row.copy == 1]
    return [row for row in comparison.rows if row.arm == "plain" and row.seed is None]


def strata_of(comparison: Comparison, rows: Sequence[Row], against: str = "") -> list[tuple[list[Row], list[Row]]]:
    """(Changed, unchanged) runs that may be exchanged under the null hypothesis: of each base run for branches, all
    together for runs from scratch. `against`: the entry from scratch that takes the unchanged runs' place."""
    branches = [row for row in rows if row.kind != "scratch"]
    found = []
    for base in dict.fromkeys(row.base for row in branches):
        mine = [row for row in branches if row.base == base]
        found.append((mine, comparison.unchanged(base, "control")))
    if scratch := [row for row in rows if row.kind == "scratch"]:
        found.append((scratch, [row for row in comparison.rows if row.arm == (against or "plain")]))
    return [(one, other) for one, other in found if one and other]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(Mean, low, high) with the 95 % t-interval; NaN where something is not finite, no interval for one value."""
    found = paired(values)
    return found["mean"], found["low"], found["high"]


def exponential(value: float) -> float:
    """exp, which is Inf beyond the largest number."""
    return math.inf if value > LARGEST_LOG else math.exp(value)


def signed_rank_p(differences: Sequence[float]) -> float:
    """The exact two-sided p of Wilcoxon's signed-rank test: every sign equally likely. Zeros have no sign, and do not
    count. Infinite differences rank above all others. NaN if none has a sign."""
    known = [one for one in differences if one != 0 and not math.isnan(one)]
    if not known:
        return math.nan
    ranks = doubled_ranks([abs(one) for one in known])
    signed = [rank if one > 0 else -rank for rank, one in zip(ranks, known, strict=True)]
    p = permutation_p([([one], [-one]) for one in signed], most=None)
    assert p is not None
    return p


def pooled_deviation(groups: Sequence[Sequence[float]]) -> float:
    """The standard deviation within groups, pooled; NaN if no group has two finite values."""
    import numpy as np

    usable = [one for one in groups if len(one) > 1 and all(map(math.isfinite, one))]
    freedom = sum(len(one) - 1 for one in usable)
    return math.sqrt(sum(float(np.var(one) * len(one)) for one in usable) / freedom) if freedom else math.nan


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def sign(value: float) -> int:
    return (value > 0) - (value < 0)
