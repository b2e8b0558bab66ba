"""The measures of claims: each gives an effect with a 95 % interval, and an exact p if there is a null hypothesis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from biggan.errors import check_known
from interventions.compare.claims.effects import (
    Effect,
    exponential,
    interval,
    mean,
    pooled_deviation,
    rows_of,
    sign,
    signed_rank_p,
    strata_of,
)
from interventions.compare.collect import Comparison, Row
from interventions.compare.permutation import doubled_ranks, rank_test
from interventions.compare.statistics import COMPARED, placed_at

if TYPE_CHECKING:
    from interventions.compare.claims.read import Claim

OWN: dict[str, tuple[str, float]] = {
    "G_first_growth_over_others": ("ratio", 1.0),
    "G_first_rise_after_over_before": ("ratio", 1.0),
    "D_noise_over_G": ("ratio", 1.0),
    "D_median_growth": ("ratio", 1.0),
    "D_rise_after_over_before": ("ratio", 1.0),
    "D_median_ratio_before": ("ratio", 1.0),
    "D_noise_over_frobenius": ("ratio", 1.0),
    "D_loss_before_over_early": ("ratio", 1.0),
    "D_loss_jump": ("ratio", 1.0),
    "D/accuracy/train_before": ("share", 0.5),
    "D/accuracy/val_before": ("share", 0.5),
    "D/auc/train_val_before": ("share", 0.5),
    "D_step_skewness": ("difference", 0.0),
    "fall_share": ("share", 0.0),
    "best_fid_over_parent": ("ratio", 1.0),
}
"""Measures of a run alone, without a comparison: their unit, and their value under the null hypothesis. Without
entries they are those of the unchanged runs from scratch (see `interventions.compare.course`)."""

RATIOS = (
    "best_fid_raw_median5", "final_fid_raw_median5", "D_loss_end", "D_loss_peak_mean10", "G_sigma0_growth",
    "D_sigma0_growth",
)  # fmt: skip
"""Compared measures whose effect is a ratio; that of the others is a difference."""


def measure_effect(comparison: Comparison, claim: Claim) -> Effect | None:
    """The effect of a claim; None if no run that it needs has ended."""
    if claim.measure == "warning_auc_sigma0":
        return _of_warning(comparison)
    if claim.trend:
        return _trend(comparison, claim)
    if claim.measure in OWN:
        return _own(comparison, claim)
    if claim.measure == "survived":
        from interventions.compare.claims.survived import survived_effect

        return survived_effect(comparison, claim.entries, claim.against)
    if claim.measure == "share_collapsed":
        return _share_collapsed(comparison, claim)
    return _compared(comparison, claim)


def check_measure(name: str, where: str) -> None:
    """Raise `UserError` for an unknown measure."""

    known = ["survived", "share_collapsed", "warning_auc_sigma0", *OWN, *COMPARED]
    check_known(name, [one for one in known if one != "delay"], f"measure of {where}:")


def _own(comparison: Comparison, claim: Claim) -> Effect | None:
    unit, null = OWN[claim.measure]
    by_base: dict[str, list[float]] = {}
    for row in rows_of(comparison, claim.entries):
        value = row.outcome.numbers.get(claim.measure) if row.outcome.done else None
        if value is not None:
            by_base.setdefault(row.base, []).append(value)
    if not by_base:
        return None
    place = math.log if unit == "ratio" else float
    values = [mean([_placed(place, one) for one in mine]) for mine in by_base.values()]
    centre = place(null)
    effect, low, high, middle = (
        exponential(one) if unit == "ratio" else one for one in (*interval(values), median(values))
    )
    if unit == "share":  # a t-interval may leave the possible values
        low, high = max(low, 0.0), min(high, 1.0)
    p = signed_rank_p([one - centre for one in values])
    toward = sign(sum(sign(one - centre) for one in values))
    return Effect(len(values), unit, effect, low, high, middle, p, toward, [(1, 1)] * len(values))


def _trend(comparison: Comparison, claim: Claim) -> Effect | None:
    """Spearman's correlation, within each base run, of the entries' order and their measure; of three entries or more.

    Equal values have no correlation with anything: 0.
    """
    from scipy.stats import rankdata

    worse = COMPARED.get(claim.measure, 1)
    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows_of(comparison, claim.entries):
        value = row.outcome.numbers.get(claim.measure) if row.outcome.done else None
        if value is not None:
            points.setdefault(row.base, []).append((claim.entries.index(row.entry), placed_at(value, worse)))
    found = []
    for mine in points.values():
        if len(mine) >= 3:
            ranks = [rankdata([one[i] for one in mine]) for i in (0, 1)]
            spread = [float(one.std()) for one in ranks]
            covered = float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean())
            found.append(covered / (spread[0] * spread[1]) if all(spread) else 0.0)
    if not found:
        return None
    effect, low, high = interval(found)
    toward = sign(sum(map(sign, found)))
    p = signed_rank_p(found)
    return Effect(len(found), "correlation", effect, low, high, median(found), p, toward, [(1, 1)] * len(found))


def _placed(place: Callable[[float], float], value: float) -> float:
    """The value on the effect's scale. What is not finite, or not positive on a ratio's, is infinite: NaN upwards."""
    if place is float:
        return value if not math.isnan(value) else math.inf
    if math.isnan(value):
        return math.inf
    return math.inf if value == math.inf else math.log(value) if value > 0 else -math.inf


def _compared(comparison: Comparison, claim: Claim) -> Effect | None:
    name, unit = claim.measure, "ratio" if claim.measure in RATIOS else "difference"
    place: Callable[[float], float] = math.log if unit == "ratio" else float
    worse = COMPARED.get(name, 1)

    def known(rows: Sequence[Row]) -> list[tuple[Row, float]]:
        values = [(row, row.outcome.numbers.get(name)) for row in rows if row.outcome.done]
        return [(row, placed_at(value, worse)) for row, value in values if value is not None]

    strata = [
        (known(one), known(other))
        for one, other in strata_of(comparison, rows_of(comparison, claim.entries), claim.against)
    ]
    strata = [(one, other) for one, other in strata if one and other]
    if not strata:
        return None
    differences: dict[str, list[float]] = {}
    exchanged = []
    for changed, unchanged in strata:
        others = [_placed(place, value) for _, value in unchanged]
        means = _by_base([(row, _placed(place, value)) for row, value in changed])
        exchanged.append((list(means.values()), others))
        for base, value in means.items():
            mine = [_placed(place, v) for row, v in unchanged if row.base == base] or others
            differences.setdefault(base, []).append(value - mean(mine))
    values = [mean(one) for one in differences.values()]
    effect, low, high, middle = (
        exponential(one) if unit == "ratio" else one for one in (*interval(values), median(values))
    )
    sizes = [(len(one), len(other)) for one, other in exchanged]
    p = 1.0 if _did_nothing(strata) else rank_test(exchanged)
    deviation = pooled_deviation([other for _, other in exchanged])
    return Effect(len(values), unit, effect, low, high, middle, p, _toward(exchanged), sizes, deviation)


def _by_base(values: Sequence[tuple[Row, float]]) -> dict[str, float]:
    """The mean of each base run's changed runs: runs of one seed are not independent of each other."""
    found: dict[str, list[float]] = {}
    for row, value in values:
        found.setdefault(row.base, []).append(value)
    return {base: mean(mine) for base, mine in found.items()}


def _did_nothing(strata: Sequence[tuple[list[tuple[Row, float]], list[tuple[Row, float]]]]) -> bool:
    """Whether every changed run equals the unchanged one with its noise, bit for bit."""

    def own(row: Row, unchanged: list[tuple[Row, float]]) -> list[float]:
        return [value for other, value in unchanged if other.base == row.base and other.seed is None]

    return all([value] == own(row, unchanged) for changed, unchanged in strata for row, value in changed)


def _toward(strata: Sequence[tuple[Sequence[float], Sequence[float]]]) -> int:
    """On which side the changed runs' ranks lie."""
    excess = 0.0
    for changed, unchanged in strata:
        ranks = doubled_ranks([*changed, *unchanged])
        excess += sum(ranks[: len(changed)]) - len(changed) * sum(ranks) / len(ranks)
    return sign(excess)


def _share_collapsed(comparison: Comparison, claim: Claim) -> Effect | None:
    """The share of base runs that collapse, with the Clopper-Pearson interval; of several entries, that of the entry
    with the smallest share: what none of them does is not done by this one either."""
    from scipy.stats import binomtest

    rows = [row for row in rows_of(comparison, claim.entries) if row.outcome.at_risk and row.outcome.done]
    counts = {}
    for entry in claim.entries:
        mine = {row.base: row.outcome.collapse is not None for row in rows if row.entry == entry}
        if mine:
            counts[entry] = (sum(mine.values()), len(mine))
    if not counts:
        return None
    least = min(counts, key=lambda entry: counts[entry][0] / counts[entry][1])
    collapsed, of = counts[least]
    test = binomtest(collapsed, of).proportion_ci(0.95, method="exact")
    words = f"{collapsed} of {of} runs collapsed" + (f" with {least}, the fewest" if len(counts) > 1 else "")
    low, high = float(test.low), float(test.high)
    return Effect(of, "share", collapsed / of, low, high, words=words, collapsed=(collapsed, of))


def _of_warning(comparison: Comparison) -> Effect | None:
    from interventions.compare.warning import SIGMA, warning_signs

    unchanged = [row for row in comparison.rows if row.arm == "plain"]  # a change that pins sigma_0 shows nothing
    signs = warning_signs(dataclasses.replace(comparison, rows=unchanged), [SIGMA])
    found = [sign for sign in signs if not math.isnan(sign.auc)]
    if not found:
        return None
    sign = found[0]
    words = f"over {sign.runs} runs; the step number alone reaches {sign.clock:.0%}"
    return Effect(sign.bases, "share", sign.auc, sign.low, sign.high, words=words)
