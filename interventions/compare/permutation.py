"""Exact permutation tests within strata: only the labels "changed" and "unchanged" are permuted, within each base run.

Each run has a score, a whole number, and the statistic is the sum of the changed runs' scores. If the change has no
effect, every choice of the same number of changed runs within each base run is equally likely. All choices are counted
(by convolution, without sampling). p is twice the share of the smaller tail, including the observed sum, and at most 1.
Scores may have any distribution; the runs of one base run only have to be exchangeable.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

MOST_SUMS = 100_000
"""The most different sums that are enumerated."""
LEVEL = 0.05

_Stratum = tuple[Sequence[float], Sequence[float]]
"""The changed runs' values of one base run, and the unchanged ones'."""
_Times = Sequence[tuple[float, bool]]
"""(Time, whether the event happened then) of each run; without an event the run was censored at that time."""


def rank_test(strata: Iterable[_Stratum]) -> float:
    """The exact two-sided p of the stratified rank test (Wilcoxon's, within base runs; van Elteren's with equal sizes).

    The statistic is the sum over base runs of the changed runs' ranks among all runs of their base run. Equal values,
    including infinite ones, get their mean rank. With one base run this is the exact Mann-Whitney test. p is 1 if all
    values are equal.

    Raises:
        ValueError: a value is NaN, which has no rank.
    """
    scored = []
    for changed, unchanged in strata:
        ranks = doubled_ranks([*changed, *unchanged])
        scored.append((ranks[: len(changed)], ranks[len(changed) :]))
    p = permutation_p(scored, most=None)
    assert p is not None
    return p


def doubled_ranks(values: Sequence[float]) -> list[int]:
    """Twice the mean rank of each value, from 2 on: whole numbers, so that their sums are exact."""
    if any(math.isnan(value) for value in values):
        raise ValueError("NaN has no rank: replace it by inf or -inf, the side on which it counts")
    counts, ranks, below = Counter(values), {}, 0
    for value in sorted(counts):
        ranks[value] = 2 * below + counts[value] + 1
        below += counts[value]
    return [ranks[value] for value in values]


def permutation_p(strata: Iterable[tuple[Sequence[int], Sequence[int]]], most: int | None = MOST_SUMS) -> float | None:
    """The two-sided p of the changed runs' sum of scores over (changed, unchanged) scores of each base run.

    None where it would take more than `most` different sums.
    """
    observed, null = 0, {0: 1}
    for changed, unchanged in strata:
        mine = subset_sums([*changed, *unchanged], len(changed), most)
        if mine is None:
            return None
        observed += sum(changed)
        found: dict[int, int] = {}
        for one, times in null.items():
            for other, count in mine.items():
                found[one + other] = found.get(one + other, 0) + times * count
            if most is not None and len(found) > most:
                return None
        null = found
    below = sum(count for value, count in null.items() if value <= observed)
    above = sum(count for value, count in null.items() if value >= observed)
    return float(min(Fraction(2 * min(below, above), sum(null.values())), Fraction(1)))


def subset_sums(scores: Sequence[int], size: int, most: int | None = None) -> dict[int, int] | None:
    """In how many ways `size` of the scores have each sum; None for more than `most` different sums."""
    ways: list[dict[int, int]] = [{0: 1}, *({} for _ in range(size))]
    for score in scores:
        for chosen in range(size, 0, -1):
            for value, count in ways[chosen - 1].items():
                ways[chosen][value + score] = ways[chosen].get(value + score, 0) + count
        if most is not None and max(map(len, ways)) > most:
            return None
    return ways[size]


def least_p(sizes: Iterable[tuple[int, int]]) -> float:
    """The smallest two-sided p that base runs with these numbers of (changed, unchanged) runs can give, without
    ties."""
    return float(min(Fraction(2, _arrangements(sizes)), Fraction(1)))


def bases_needed(sizes: Sequence[tuple[int, int]], family: int = 1, level: float = LEVEL) -> int | None:
    """How many base runs like these make `level` reachable after Holm's correction over `family` tests.

    "Like these" means that each has the geometric mean of these base runs' numbers of arrangements. None if no number
    is enough, because no base run has both a changed and an unchanged run.
    """
    per_base = math.log(_arrangements(sizes)) / len(sizes) if sizes else 0.0
    if per_base == 0:
        return None
    # A hair less, for a quotient that is a whole number but for rounding.
    return max(1, math.ceil(math.log(2 * family / level) / per_base - 1e-9))


def _arrangements(sizes: Iterable[tuple[int, int]]) -> int:
    return math.prod(math.comb(changed + unchanged, changed) for changed, unchanged in sizes)


def holm(values: Sequence[float], tests: int | None = None) -> list[float]:
    """Holm's adjusted p values, in the same order, for a family of `family` tests (default: the number of values).

    NaN marks a test without differences. It stays NaN and counts in the family, because the family must not depend on
    the results.
    """
    tests = max(tests or 0, len(values))
    order = sorted((i for i, p in enumerate(values) if not math.isnan(p)), key=lambda i: values[i])
    adjusted, largest = [math.nan] * len(values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (tests - place) * values[i]))
        adjusted[i] = largest
    return adjusted


def correct(rows: list[dict[str, Any]], tests: int | None = None) -> None:
    """Add p_holm, least_p and bases_needed to the rows of one family of (at least) `family` tests, and remove `sizes`.

    `least_p` is `permutation.least_p` times the number of tests, at most 1: p_holm of the family's smallest p, if no
    test could do better.
    """
    tests = max(tests or 0, len(rows))
    for row, adjusted in zip(rows, holm([row["p"] for row in rows], tests), strict=True):
        sizes = row.pop("sizes")
        least = min(1.0, tests * least_p(sizes))
        row |= {"p_holm": adjusted, "least_p": least}
        row["bases_needed"] = bases_needed(sizes, tests) if least > LEVEL else None


@dataclass(frozen=True)
class LogRank:
    """A log-rank test.

    Attributes:
        excess: events among the changed runs minus the expected number (O - E), over all base runs.
        variance: of the excess, hypergeometric.
        p: two-sided; NaN if no run had an event.
        method: "exact" (all permutations within base runs), or "asymptotic" (chi-squared) where there are too many.
    """

    excess: float
    variance: float
    p: float
    method: str


def logrank_test(changed: _Times, unchanged: _Times) -> LogRank:
    """The log-rank test of two groups, exact by permutation whenever all permutations can be counted."""
    return stratified_logrank_test([(changed, unchanged)])


def stratified_logrank_test(strata: Iterable[tuple[_Times, _Times]], most: int = MOST_SUMS) -> LogRank:
    """The log-rank test stratified by base run: runs at risk are counted, and the labels permuted, within each base
    run.
    It is exact under the null hypothesis if changed and unchanged runs of a base run are censored alike."""
    strata = list(strata)
    scored = [(logrank_scores([*one, *other]), len(one)) for one, other in strata]
    excess = float(sum(sum(scores[:size]) for scores, size in scored))
    variance = float(sum(_logrank_variance(one, other) for one, other in strata))
    if not any(happened for one, other in strata for _, happened in (*one, *other)):
        return LogRank(excess, variance, math.nan, "exact")
    scale = math.lcm(*(score.denominator for scores, _ in scored for score in scores))
    whole = [([int(score * scale) for score in scores], size) for scores, size in scored]
    p = permutation_p(((scores[:size], scores[size:]) for scores, size in whole), most)
    if p is not None:
        return LogRank(excess, variance, p, "exact")
    asymptotic = math.erfc(abs(excess) / math.sqrt(2 * variance)) if variance > 0 else 1.0
    return LogRank(excess, variance, asymptotic, "asymptotic")


def logrank_scores(times: _Times) -> list[Fraction]:
    """Each run's log-rank score: 1 if the event happened, minus the cumulative hazard (Nelson-Aalen) up to its time.

    All scores add up to 0, and the scores of a group to its O - E.
    """
    hazard, lived = Fraction(0), {}
    for time in sorted({time for time, _ in times}):
        at_risk = sum(one >= time for one, _ in times)
        hazard += Fraction(sum(happened for one, happened in times if one == time), at_risk)
        lived[time] = hazard
    return [int(happened) - lived[time] for time, happened in times]


def _logrank_variance(changed: _Times, unchanged: _Times) -> Fraction:
    variance, both = Fraction(0), [*changed, *unchanged]
    for time in {time for time, happened in both if happened}:
        n, mine = (sum(one >= time for one, _ in group) for group in (both, changed))
        events = sum(happened for one, happened in both if one == time)
        if n > 1:
            variance += Fraction(events * mine * (n - mine) * (n - events), n * n * (n - 1))
    return variance
