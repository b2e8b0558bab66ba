"""The statistics of a comparison: the variation of unchanged runs, and the effect of each change on each measure.

The base run is the unit: tests are made within base runs, and effects averaged over them. NaN and Inf count: a run that
is not finite is worse than every finite one, on the side that `COMPARED` names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from interventions.compare.collect import UNCHANGED, Comparison, Row
from interventions.compare.lifetimes import delay_facts, survival, survival_tests
from interventions.compare.permutation import correct, logrank_test, rank_test, stratified_logrank_test

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COMPARED", "effects", "logrank_test", "paired", "rank_test", "seed_variation", "stratified_logrank_test",
    "survival", "survival_tests",
]  # fmt: skip

COMPARED = {
    "delay": -1,  # collapsed earlier
    "best_fid_raw_median5": 1,
    "final_fid_raw_median5": 1,
    "last_fid_raw": 1,
    "last_spread_raw": -1,  # one picture a class
    "final_fid_ema_median5": 1,
    "D_loss_end": 1,  # a loss that breaks has run away upwards
    "D_loss_peak_mean10": 1,
    "G_sigma0_growth": 1,
    "D_sigma0_growth": 1,
    "G_sigma_ratio_end": 1,
    "D_sigma_ratio_end": 1,
    "D_spikes_per_1000": 1,
    "D/accuracy/train": -1,  # right on nothing
    "D/accuracy/val": -1,
    "D/auc/train_val": 1,  # remembers all
    "D/auc/real_fake": -1,  # tells nothing apart
    "D/gap/train_val": 1,
}
"""The measures that are compared with the unchanged runs, within each base run: 1 if larger is worse, -1 if smaller is.
The sign is used only to rank a run that is not finite beyond all others on that side."""

COLUMNS = [
    "entry", "measure", "n", "changed", "unchanged", "not_finite", "not_finite_unchanged", "p", "p_holm", "least_p",
    "bases_needed", "effect_sd", "effect_sd_se", "mean", "low", "high", "positive", "negative", "p_sign", "test",
]  # fmt: skip


@dataclass
class Stratum:
    """The runs of one base run in which a measure is known.

    Attributes:
        pairs: each changed run's number, and that of the unchanged run with the same noise (None: not known).
        unchanged: the numbers of all unchanged runs.
    """

    base: str
    pairs: list[tuple[float, float | None]] = field(default_factory=list)
    unchanged: list[float] = field(default_factory=list)

    @property
    def changed(self) -> list[float]:
        return [value for value, _ in self.pairs]

    @property
    def is_whole(self) -> bool:
        """Whether some changed run in it can be compared with its own control."""
        return any(control is not None for _, control in self.pairs)


def seed_variation(comparison: Comparison) -> pd.DataFrame:
    """How much unchanged continuations of one parent vary: base, of, measure, n, of_n, not_finite, least, most,
    deviation.

    If one is not finite, no deviation is given, and `least` or `most` is infinite on the worse side.
    """
    import pandas as pd

    rows = []
    for base in dict.fromkeys(row.base for row in comparison.rows):
        for root in UNCHANGED:
            mine = [row for row in comparison.rows if row.base == base and row.arm == root]
            if len(mine) < 2:
                continue
            facts = {"base": base, "of": root}
            # The numbers of a run that is still training belong to an earlier step.
            done = [row.outcome.numbers for row in mine if row.outcome.done]
            measures: dict[str, list[float]] = {
                "collapse": [
                    float(row.outcome.collapse)
                    for row in mine
                    if row.outcome.collapse is not None and not row.outcome.collapsed_before
                ]
            }
            for name in COMPARED:
                measures[name] = [value for numbers in done if (value := numbers.get(name)) is not None]
            for name, values in measures.items():
                if values:
                    rows.append(facts | {"measure": name, "of_n": len(mine)} | _spread(values, COMPARED.get(name, 1)))
    columns = ["base", "of", "measure", "n", "of_n", "not_finite", "least", "most", "deviation"]
    return pd.DataFrame(rows, columns=columns)


def _spread(values: Sequence[float], worse: int) -> dict[str, Any]:
    import numpy as np

    placed = [placed_at(value, worse) for value in values]
    broken = sum(not math.isfinite(value) for value in values)
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 and not broken else math.nan
    facts = {"n": len(values), "not_finite": broken}
    return facts | {"least": min(placed), "most": max(placed), "deviation": deviation}


def placed_at(value: float, worse: int) -> float:
    """The value for ranks and signs: a value that is not finite becomes infinite on the worse side."""
    return value if math.isfinite(value) else worse * math.inf


def effects(comparison: Comparison) -> pd.DataFrame:
    """Each entry against the unchanged runs, within base runs: one row per entry and measure.

    - `n`: base runs in which the measure is known of the entry and of its control; `changed`, `unchanged`: their runs;
      `not_finite`, `not_finite_unchanged`: how many of the changed and of the unchanged runs are NaN or Inf;
    - `p`: exact and two-sided, by the rank test of the entry's runs (all seeds) against all unchanged runs of their
      base run (the control among them), stratified by base run (`interventions.compare.permutation.rank_test`); for
      a delay by the log-rank test, also stratified. It is 1 if every changed run equals its own control, because the
      change then did nothing. `test` names the test;
    - `p_holm`: after Holm's correction over the entries of the same measure; `least_p`: the smallest
      possible `p_holm`, reached if in every base run all changed runs lie on one side of all unchanged ones, and the
      test has the smallest p of the family. If it is above 0.05, `bases_needed` is the number of such base runs that
      would bring it there;
    - `effect_sd`: the mean over base runs of (mean of the changed - mean of the unchanged), in standard deviations
      among unchanged runs of one base run, pooled; `effect_sd_se`: its standard error, from how the base runs differ
      and how well the deviation is known (none for a single base run);
    - `mean`: over base runs, of entry minus its own control (same noise; seeds averaged first), [`low`, `high`] its
      95 % t-interval, `positive` and `negative` the numbers of base runs by sign, `p_sign` the exact sign test's p. A
      run that is not finite counts in ranks and signs as worse than all others; there is then no mean, interval or
      effect.

    Runs that have not come to their end count in delays only. A delay counts by its sign where only one of the two
    collapsed; it has a mean only where both did in every pair.
    """
    import pandas as pd

    rows = []
    for entry in comparison.entries():
        if delays := delay_facts(comparison, entry):
            rows.append({"entry": entry, "measure": "delay"} | _of_delays(delays))
        for name, worse in COMPARED.items():
            strata = [one for one in _strata(comparison, entry, name) if one.is_whole]
            if name != "delay" and strata:
                rows.append({"entry": entry, "measure": name} | _effect(strata, worse))
    for name in COMPARED:  # entries that have not begun or have no number yet are tests too
        correct([row for row in rows if row["measure"] == name], len(comparison.families))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype({"bases_needed": "Int64"})


def _strata(comparison: Comparison, entry: str, name: str) -> list[Stratum]:
    """The known values of a measure in runs that have ended, for each base run."""

    def known(row: Row | None) -> float | None:
        return row.outcome.numbers.get(name) if row is not None and row.outcome.done else None

    found: dict[str, Stratum] = {}
    for row in comparison.rows:
        if row.arm == entry and (value := known(row)) is not None:
            stratum = found.setdefault(row.base, Stratum(row.base))
            stratum.pairs.append((value, known(comparison.control_of(row))))
            if not stratum.unchanged:
                others = [known(one) for one in comparison.unchanged(row.base, row.control_entry)]
                stratum.unchanged = [one for one in others if one is not None]
    return list(found.values())


def _effect(strata: Sequence[Stratum], worse: int) -> dict[str, Any]:
    changed = [value for one in strata for value in one.changed]
    unchanged = [value for one in strata for value in one.unchanged]
    facts: dict[str, Any] = {"n": len(strata), "changed": len(changed), "unchanged": len(unchanged)}
    for name, values in (("not_finite", changed), ("not_finite_unchanged", unchanged)):
        facts[name] = sum(not math.isfinite(value) for value in values)
    if all(_equal(value, control) for one in strata for value, control in one.pairs):
        facts |= {"p": 1.0, "test": "equal to the control"}
    else:
        placed = [[[placed_at(v, worse) for v in values] for values in (s.changed, s.unchanged)] for s in strata]
        facts |= {"p": rank_test((mine, others) for mine, others in placed), "test": "ranks, exact"}
    facts["sizes"] = [(len(one.changed), len(one.unchanged)) for one in strata]
    differences = by_base(
        (one.base, difference(value, control, worse))
        for one in strata
        for value, control in one.pairs
        if control is not None
    )
    return facts | effect_in_sds([(one.changed, one.unchanged) for one in strata]) | paired(differences)


def _equal(value: float, control: float | None) -> bool:
    """Whether every changed run equals its own control."""
    return control is not None and (value == control or not (math.isfinite(value) or math.isfinite(control)))


def _of_delays(facts: dict[str, Any]) -> dict[str, Any]:
    """The statistics of delays (see `effects`); no mean if one run of a pair did not collapse."""
    found = {name: facts[name] for name in ("n", "changed", "unchanged", "p", "test", "sizes")}
    found |= {"not_finite": 0, "not_finite_unchanged": 0}
    if facts["delays"] is not None:
        return found | effect_in_sds(facts["strata"]) | paired(by_base(facts["delays"]))
    signs = paired(by_base(facts["signs"]))
    return found | {name: signs[name] for name in ("positive", "negative", "p_sign")}


def difference(value: float, control: float, worse: int) -> float:
    """Entry minus control; plus or minus infinity if one of the two is not finite, NaN if both are not."""
    return placed_at(value, worse) - placed_at(control, worse)


def by_base(differences: Iterable[tuple[str, float]]) -> list[float]:
    """The mean difference in each base run: several seeds of one base run count as one observation."""
    found: dict[str, list[float]] = {}
    for base, one in differences:
        found.setdefault(base, []).append(one)
    return [sum(values) / len(values) for values in found.values()]


def paired(differences: Sequence[float]) -> dict[str, Any]:
    """The statistics of paired differences, one per base run (see `effects`). NaN is a difference without a sign."""
    import numpy as np
    from scipy import stats

    n, mean, half = len(differences), math.nan, math.nan
    if n and all(map(math.isfinite, differences)):
        mean = float(np.mean(differences))
        if n > 1:
            half = float(stats.t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / math.sqrt(n))
    positive, negative = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    p = float(stats.binomtest(positive, positive + negative).pvalue) if positive + negative else 1.0
    found = {"mean": mean, "low": mean - half, "high": mean + half}
    return found | {"positive": positive, "negative": negative, "p_sign": p}


def effect_in_sds(strata: Sequence[tuple[Sequence[float], Sequence[float]]]) -> dict[str, float]:
    """`effect_sd` and `effect_sd_se` of (changed, unchanged) values, base run by base run.

    The effect d is the mean over B base runs of the difference of means, over the deviation s pooled among unchanged
    runs with f degrees of freedom. To first order its variance is that of the base runs' effects over B s^2, plus
    d^2 / 2 f for s. NaN where anything is not finite, or s is 0 or not known; the error also with a single base run.
    """
    import numpy as np

    unknown = {"effect_sd": math.nan, "effect_sd_se": math.nan}
    if not all(math.isfinite(value) for one in strata for group in one for value in group):
        return unknown
    freedom = sum(len(unchanged) - 1 for _, unchanged in strata)
    squares = sum(float(np.var(unchanged) * len(unchanged)) for _, unchanged in strata)
    if freedom == 0 or squares == 0:
        return unknown
    s = math.sqrt(squares / freedom)
    found = [float(np.mean(changed) - np.mean(unchanged)) / s for changed, unchanged in strata]
    effect, error = float(np.mean(found)), math.nan
    if len(found) > 1:
        error = math.sqrt(float(np.var(found, ddof=1)) / len(found) + effect**2 / (2 * freedom))
    return {"effect_sd": effect, "effect_sd_se": error}
