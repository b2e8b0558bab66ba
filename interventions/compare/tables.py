"""The tables of a comparison in words: seed variation, runs, effects, survival, each with what its columns mean."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from interventions.compare.collect import Comparison, Row
from interventions.compare.lifetimes import survival_tests
from interventions.compare.permutation import LEVEL
from interventions.compare.runs_table import not_finite, table
from interventions.compare.statistics import effects, seed_variation

if TYPE_CHECKING:
    import pandas as pd

NO_SCORES = "no scores recorded: give --eval.every (100, for example); collapse is then detected from the scores."
MEASURES = {
    "collapse": "begin of collapse (step)",
    "delay": "delay of the collapse (steps)",
    "best_fid_raw_median5": "best FID (median of 5)",
    "final_fid_raw_median5": "final FID (median of 5)",
    "last_fid_raw": "last FID",
    "final_fid_ema_median5": "final FID of the average (median of 5)",
    "last_spread_raw": "last spread (share of real)",
    "D_loss_start": "D's loss, start",
    "D_loss_end": "D's loss, end",
    "D_loss_peak_mean10": "D's loss, peak (mean of 10 steps)",
    "G_sigma0_growth": "growth of sigma_0 in G (ratio)",
    "D_sigma0_growth": "growth of sigma_0 in D (ratio)",
    "G_sigma_ratio_end": "sigma_0 / sigma_1 in G, end",
    "D_sigma_ratio_end": "sigma_0 / sigma_1 in D, end",
    "D_spikes_per_1000": "spikes of D's sigma_0 (per 1,000 steps)",
    "D/accuracy/train": "D's accuracy, training images",
    "D/accuracy/val": "D's accuracy, validation images",
    "D/accuracy/fake": "D's accuracy, G's images",
    "D/auc/train_val": "D's AUC, training or validation",
    "D/auc/real_fake": "D's AUC, real or G's",
    "D/gap/train_val": "gap of D's logits, training to validation (SDs)",
}
"""Each measure in plain words, with its unit."""
SHOWN = {
    "collapse": "collapse at",
    **{name: words for name, words in MEASURES.items() if name != "collapse"},
    "G_sigma0_growth_layer": "layer of G",
    "D_sigma0_growth_layer": "layer of D",
}
"""Columns of the table of runs, and their headings."""
HEADS = {
    "p": "p (exact)",
    "p_holm": "p (Holm)",
    "least_p": "least p (Holm)",
    "bases_needed": "bases needed",
    "p_sign": "p (sign)",
    "not_finite": "not finite",
    "n_unchanged": "unchanged runs",
    "collapsed_unchanged": "unchanged collapsed",
    "base": "base run",
    "of": "entry",
    "of_n": "runs",
}
TEXTS = ("base", "base run", "entry", "measure", "layer of G", "layer of D", "test", "method")
"""Columns of words, which stand at the left."""


def with_texts(frame: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    """The table of runs with "nan", "inf" or "-inf" for recorded values; NaN stays for unknown values."""
    frame = frame.astype(object)
    for place, row in enumerate(comparison.rows):
        for name in not_finite(row.outcome.numbers):
            frame.loc[frame.index[place], name] = str(row.outcome.numbers[name])
    return frame


def sections(comparison: Comparison) -> list[tuple[str, str, pd.DataFrame | None]]:
    """(Title, text below, table) of each part of the report, seed variation first."""
    bases = len({row.base for row in comparison.rows})
    changes = effects(comparison)
    found: list[tuple[str, str, pd.DataFrame | None]] = [
        (
            "Seed variation: unchanged continuations of one parent under other seeds",
            SEED_VARIATION,
            _for_show(seed_variation(comparison)),
        ),
        ("Runs", _censoring(comparison), _runs(comparison)),
        (
            f"Changes against the unchanged runs, within base runs (n is the number of base runs, {bases} in all)",
            f"{EFFECTS} {_needed_to_decide(changes)}".strip(),
            _effects_for_show(changes),
        ),
    ]
    if comparison.scored:
        tests = survival_tests(comparison)
        title = "Survival: log-rank against the unchanged runs, within base runs"
        shown = _for_show(tests.rename(columns={"p": "p (log-rank)"}))
        found.append((title, f"{SURVIVAL} {_needed_to_decide(tests)}".strip(), shown))
    return found


SEED_VARIATION = (
    "An effect smaller than this variation means nothing. n: of so many runs, those in which the measure is known. "
    "Collapse is known in runs that collapsed; every other measure in runs that have ended."
)
EFFECTS = (
    "p: exact rank test of the entry's runs against all unchanged runs of their base run, stratified by base run (for "
    "the delay: log-rank test, also stratified); p is 1 if the change did nothing. p (Holm): corrected over the "
    "entries "
    "of the same measure. least p: the smallest p (Holm) that this design could give. effect: mean of the changed runs "
    "minus mean of the unchanged runs, averaged over base runs, in standard deviations among unchanged runs. mean, "
    "interval, signs and p (sign): entry minus its own control (the same noise), one difference per base run. A run "
    "with NaN or Inf ranks as worse than all others; mean and effect are then not given. delay: if only one of the two "
    "runs collapsed, and a collapse of the other would have been visible by that step, only the sign counts; the mean "
    "is given only if both runs of every pair collapsed."
)
SURVIVAL = (
    "Collapse is decided by biggan.judge_collapse. n: runs, with all seeds and all unchanged continuations of the same "
    "base runs. p: exact, by permutation within base runs, whenever all permutations can be counted. A run without a "
    "collapse is censored at the last step at which the beginning of one would still have been visible. Numbers that "
    "became NaN or Inf and stayed so count as a collapse. Runs that had collapsed before the branching point are "
    "excluded. Curves: Kaplan-Meier, one run per base run."
)


def _needed_to_decide(tests: pd.DataFrame) -> str:
    """If the design cannot reach significance: what would be needed."""
    undecided = tests[tests["least_p"] > LEVEL]
    if undecided.empty:
        return ""
    needed = undecided["bases_needed"].dropna()
    would = f"{needed.max()} base runs like these would be enough" if len(needed) else "more unchanged runs are needed"
    least = f"{undecided['least_p'].min():.2g}"
    return f"This design cannot decide tests whose least p is above {LEVEL} (here {least} or more); {would}."


def _censoring(comparison: Comparison) -> str:
    if not comparison.scored:
        return NO_SCORES
    return (
        "'none by STEP': no collapse began up to this step; a later beginning would not be visible yet (censored). "
        "Best and "
        "final FID (median of 5): the lowest and the last running median over five evaluations; last FID: the last "
        "evaluation alone. nan, inf: recorded values. -: not known."
    )


def _runs(comparison: Comparison) -> pd.DataFrame:
    frame = with_texts(table(comparison), comparison)
    shown = frame[["base", "entry"]].copy()
    for name, head in SHOWN.items():
        if name == "collapse":
            shown[head] = [_collapse(row) for row in comparison.rows]
        elif name in frame and frame[name].notna().any():
            shown[head] = frame[name].map(short_number)
    return shown


def _collapse(row: Row) -> str:
    one = row.outcome
    if one.collapse is not None:
        before = " (before the branch)" if one.collapsed_before else ""
        why = " (not finite)" if one.collapse_rule == "non_finite" else ""
        return f"{one.collapse}{why}{before}"
    if one.too_short:
        return "too short to judge"
    return f"none by {one.judged_until}" if one.at_risk else "no scores"


def _for_show(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({HEADS.get(name, name): _column(frame, name) for name in frame})


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column as it is shown: measures in words, numbers short."""
    return frame[name].map(lambda value: MEASURES.get(value, value) if name == "measure" else short_number(value))


def _effects_for_show(changes: pd.DataFrame) -> pd.DataFrame:
    """Numbers that belong together in one column."""
    import pandas as pd

    shown = {HEADS.get(name, name): _column(changes, name) for name in ("entry", "measure", "n")}
    if changes["not_finite"].any() or changes["not_finite_unchanged"].any():
        pairs = zip(changes["not_finite"], changes["not_finite_unchanged"], strict=True)
        shown["not finite"] = [
            f"{changed}, unchanged {others}" if others else str(changed) for changed, others in pairs
        ]
    for name in ("p", "p_holm", "least_p", "bases_needed"):
        shown[HEADS[name]] = changes[name].map(short_number)
    shown["effect in control SDs"] = _joined(changes, "{} ± {}", "effect_sd", "effect_sd_se")
    shown["mean"] = changes["mean"].map(short_number)
    shown["95 % interval"] = _joined(changes, "{} to {}", "low", "high")
    shown["signs"] = _joined(changes, "+{} -{}", "positive", "negative")
    return pd.DataFrame(shown | {HEADS["p_sign"]: changes["p_sign"].map(short_number)})


def _joined(frame: pd.DataFrame, words: str, one: str, other: str) -> list[str]:
    pairs = [(short_number(a), short_number(b)) for a, b in zip(frame[one], frame[other], strict=True)]
    return ["-" if pair[0] == "-" else words.format(*pair) for pair in pairs]


def short_number(value: Any) -> str:
    """A value in four digits; "-" for what is not known."""
    import pandas as pd

    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
