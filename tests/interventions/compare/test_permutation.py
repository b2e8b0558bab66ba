"""Exact tests within base runs against brute force, scipy, lifelines and values worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from interventions.compare.permutation import (
    bases_needed,
    correct,
    doubled_ranks,
    holm,
    least_p,
    logrank_scores,
    logrank_test,
    rank_test,
    stratified_logrank_test,
)  # fmt: skip

Strata = Sequence[tuple[list, list]]


def brute_force(strata: Strata, scores_of: Callable[[list], list]) -> float:
    """Every choice of as many changed runs in each stratum, one by one; twice the smaller tail."""
    scored = [(scores_of([*one, *other]), len(one)) for one, other in strata]
    observed = sum((sum(scores[:size]) for scores, size in scored), Fraction(0))
    choices = itertools.product(*(itertools.combinations(scores, size) for scores, size in scored))
    sums = [sum(map(sum, choice), Fraction(0)) for choice in choices]
    tails = sum(one <= observed for one in sums), sum(one >= observed for one in sums)
    return min(1.0, 2 * min(tails) / len(sums))


def ranks(values: list[float]) -> list[Fraction]:
    return [Fraction(int(2 * rank), 2) for rank in stats.rankdata(values)]


def test_one_changed_run_beyond_four_unchanged_ones_in_three_base_runs() -> None:
    """One of 125 arrangements, and the one on the other side."""
    strata = [([9.0], [1.0, 2.0, 3.0, 4.0]), ([0.5], [0.1, 0.2, 0.3, 0.4]), ([70.0], [50.0, 60.0, 65.0, 69.0])]
    assert rank_test(strata) == pytest.approx(2 / 125, rel=1e-12)
    assert rank_test([([-one for one in a], [-one for one in b]) for a, b in strata]) == rank_test(strata)
    assert rank_test([([2.5], [1.0, 2.0, 3.0, 4.0])]) == 1  # in the middle
    assert rank_test([([3.0], [3.0, 3.0])]) == 1
    assert rank_test([]) == 1


@pytest.mark.parametrize("seed", range(20))
def test_ranks_within_strata_are_all_counted(seed: int) -> None:
    """With ties, infinite values and strata of different sizes."""
    random = np.random.default_rng(seed)
    values = [*range(4), math.inf, -math.inf]
    strata = [
        (random.choice(values, size=int(random.integers(1, 4))).tolist(),
         random.choice(values, size=int(random.integers(1, 5))).tolist())
        for _ in range(3)
    ]  # fmt: skip
    assert rank_test(strata) == pytest.approx(brute_force(strata, ranks), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_rank_test_is_scipys(seed: int) -> None:
    random = np.random.default_rng(seed)
    one, other = random.normal(0.7, size=4), random.normal(size=6)
    found = rank_test([(one.tolist(), other.tolist())])
    assert found == pytest.approx(stats.mannwhitneyu(one, other, method="exact").pvalue, rel=1e-9)
    pooled = np.array(doubled_ranks([*one, *other]))

    def statistic(mine: np.ndarray, _: np.ndarray) -> float:
        return float(mine.sum())

    exact = stats.permutation_test((pooled[:4], pooled[4:]), statistic, n_resamples=math.inf)
    assert found == pytest.approx(exact.pvalue, rel=1e-9)


def test_what_is_not_a_number_has_no_rank() -> None:
    with pytest.raises(ValueError, match="inf or -inf"):
        rank_test([([math.nan], [1.0])])


def test_p_is_uniform_where_nothing_was_done() -> None:
    """As many p at or below each level as the level says, counted over all arrangements."""
    found = [rank_test([([float(x)], [float(v) for v in range(5) if v != x]), ([float(y)], [float(v) for v in range(5)
                        if v != y])]) for x in range(5) for y in range(5)]  # fmt: skip
    for level in (0.05, 0.08, 0.1, 0.25, 0.5):
        assert sum(p <= level for p in found) / len(found) <= level
    assert min(found) == pytest.approx(least_p([(1, 4), (1, 4)])) == pytest.approx(2 / 25)


ALL, NONE = [(1, True), (2, True), (3, True)], [(9, False)] * 3


def test_three_of_three_against_none_of_three_is_a_tenth() -> None:
    """Two of the 20 arrangements; the asymptotic test says 0.025."""
    found = logrank_test(ALL, NONE)
    assert (found.p, found.method) == (pytest.approx(0.1, rel=1e-12), "exact")
    assert math.erfc(found.excess / math.sqrt(2 * found.variance)) == pytest.approx(0.0246, abs=1e-4)
    # By hand: at the three times 6, 5 and 4 are at risk, 3, 2 and 1 of them changed.
    assert found.excess == pytest.approx(3 - (3 / 6 + 2 / 5 + 1 / 4))
    assert found.variance == pytest.approx(sum(d * (n - d) / n**2 for n, d in ((6, 3), (5, 2), (4, 1))))
    assert math.isnan(logrank_test(NONE, NONE).p)  # nothing happened: nothing to tell apart
    assert logrank_test(ALL, ALL).p == 1


def lifetimes(random: np.random.Generator, size: int) -> list[tuple[int, bool]]:
    return [(int(random.integers(1, 8)), bool(random.random() < 0.6)) for _ in range(size)]


@pytest.mark.parametrize("seed", range(10))
def test_the_log_rank_within_strata_is_all_counted(seed: int) -> None:
    random = np.random.default_rng(seed)
    strata = [(lifetimes(random, 2), lifetimes(random, int(random.integers(2, 5)))) for _ in range(3)]
    found = stratified_logrank_test(strata)
    assert found.method == "exact"
    assert found.p == pytest.approx(brute_force(strata, logrank_scores), rel=1e-12)
    for one, other in strata:
        assert sum(logrank_scores([*one, *other])) == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_log_rank_statistic_is_scipys(seed: int) -> None:
    random = np.random.default_rng(seed)
    groups = lifetimes(random, 6), lifetimes(random, 7)
    found = logrank_test(*groups)
    censored = [
        stats.CensoredData(uncensored=[t for t, happened in one if happened], right=[t for t, h in one if not h])
        for one in groups
    ]
    theirs = stats.logrank(*censored)
    assert abs(theirs.statistic) == pytest.approx(abs(found.excess) / math.sqrt(found.variance))
    asymptotic = stratified_logrank_test([groups], most=3)  # too many sums to count
    assert (found.method, asymptotic.method) == ("exact", "asymptotic")
    assert asymptotic.p == pytest.approx(theirs.pvalue)


@pytest.mark.filterwarnings("ignore:Starting with pandas")
@pytest.mark.parametrize("seed", range(5))
def test_the_log_rank_statistic_is_lifelines(seed: int) -> None:
    logrank = pytest.importorskip("lifelines.statistics").logrank_test
    random = np.random.default_rng(seed)
    groups = lifetimes(random, 6), lifetimes(random, 7)
    found = logrank_test(*groups)
    times, events = ([[run[i] for run in one] for one in groups] for i in (0, 1))
    assert logrank(*times, *events).test_statistic == pytest.approx(found.excess**2 / found.variance)


def test_holm_by_hand() -> None:
    """Four tests: 4 x .01, 3 x .02 = .06 and 2 x .02 = .04, which may not be below the one before, .5."""
    assert holm([0.5, 0.02, 0.01, 0.02]) == pytest.approx([0.5, 0.06, 0.04, 0.06])
    nothing = holm([0.01, math.nan])
    assert nothing[0] == 0.02  # a test in which nothing was seen is a test
    assert math.isnan(nothing[1])
    assert holm([0.01], tests=8) == [0.08]


def test_what_a_design_can_reach() -> None:
    assert least_p([(1, 4)] * 3) == pytest.approx(2 / 125)
    assert least_p([(2, 2), (1, 0)]) == pytest.approx(2 / 6)
    assert least_p([(1, 0)]) == 1
    assert bases_needed([(1, 4)] * 3, family=8) == 4  # 8 x 2 / 5^4 = 0.0256, and 8 x 2 / 5^3 = 0.128
    assert bases_needed([(1, 1)] * 3) == 6  # 2 / 2^6 = 0.031
    assert bases_needed([(1, 3)] * 2, level=2 / 4**3) == 3  # just reached
    assert bases_needed([(1, 0)]) is None
    assert bases_needed([]) is None
    for changed, unchanged, family in itertools.product((1, 2, 3), (1, 2, 4, 9), (1, 2, 7, 20)):
        needed = bases_needed([(changed, unchanged)] * 2, family)
        assert family * least_p([(changed, unchanged)] * needed) <= 0.05
        assert needed == 1 or family * least_p([(changed, unchanged)] * (needed - 1)) > 0.05


def test_a_family_is_corrected_together() -> None:
    rows = [{"p": p, "sizes": [(1, 4)] * 4} for p in (0.0032, 1.0)]
    correct(rows)
    assert [row["p_holm"] for row in rows] == [pytest.approx(0.0064), 1]
    assert [(row["least_p"], row["bases_needed"]) for row in rows] == [(pytest.approx(2 * 2 / 625), None)] * 2
    alone = [{"p": 0.016, "sizes": [(1, 4)] * 3}]
    correct(alone, tests=8)
    assert alone == [{"p": 0.016, "p_holm": 0.128, "least_p": pytest.approx(0.128), "bases_needed": 4}]


def test_doubled_ranks_are_twice_those_of_scipy() -> None:
    values = [10.0, 20.0, 20.0, -math.inf, math.inf, 5.0]
    assert doubled_ranks(values) == (2 * stats.rankdata(values)).tolist()
