"""Effects on made-up outcomes: against all unchanged runs, with runs that are not finite, with runs cut off early."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interventions.compare.collect import Comparison, Row
from interventions.compare.outcome import RunOutcome
from interventions.compare.page import document
from interventions.compare.report import write_report
from interventions.compare.runs_table import table
from interventions.compare.series import d_loss_series, sigma_series
from interventions.compare.statistics import (
    COMPARED,
    effect_in_sds,
    effects,
    paired,
    seed_variation,
    survival,
    survival_tests,
)
from interventions.compare.tables import sections
from spectra.draw.look import mark_broken, new_figure

FID, SPREAD = "final_fid_raw_median5", "last_spread_raw"


def row(base: str, entry: str, value: float | None, measure: str = FID, **facts: object) -> Row:
    entry, _, number = entry.partition("-seed-")
    seed = int(number) if number else None
    kind = "branch" if entry != "control" else "control" if seed is None else "seed"
    outcome = RunOutcome(Path(base) / entry, 100, 1000, True, judged_until=900, ended="finished")
    outcome.numbers[measure] = value
    for name, fact in facts.items():
        setattr(outcome, name, fact)
    return Row(base, entry, kind, outcome, seed)


def study(
    changed: list[float | None], measure: str = FID, unchanged: tuple[float, ...] = (10, 11, 12, 13)
) -> Comparison:
    """One changed run a base run beside the same four unchanged ones."""
    rows = []
    for number, value in enumerate(changed):
        names = ["control", *(f"control-seed-{i}" for i in range(1, len(unchanged)))]
        rows += [row(f"base-{number}", name, one, measure) for name, one in zip(names, unchanged, strict=True)]
        rows.append(row(f"base-{number}", "r1", value, measure))
    return Comparison(rows)


def effect(comparison: Comparison, measure: str = FID, entry: str = "r1") -> dict:
    return effects(comparison).set_index(["entry", "measure"]).loc[(entry, measure)].to_dict()


def test_a_change_is_held_against_all_unchanged_runs() -> None:
    """One of 125 arrangements on each side, where the sign test of three pairs has 0.25."""
    found = effect(study([9, 8, 9.5]))
    assert (found["p"], found["p_sign"]) == (pytest.approx(2 / 125), pytest.approx(0.25))
    assert (found["n"], found["changed"], found["unchanged"], found["not_finite"]) == (3, 3, 12, 0)
    assert found["test"] == "ranks, exact"
    assert (found["p_holm"], found["least_p"]) == (pytest.approx(0.016), pytest.approx(0.016))
    assert pd.isna(found["bases_needed"])
    # Between the unchanged ones it is nothing, though every sign is against the control.
    between = effect(study([11.5, 11.5, 11.5]))
    assert (between["p"], between["p_sign"]) == (1, pytest.approx(0.25))


def test_two_base_runs_cannot_decide_and_say_what_would() -> None:
    found = effect(study([9, 9]))
    assert (found["least_p"], found["bases_needed"]) == (pytest.approx(2 / 25), 3)
    words = sections(study([9, 9]))[2][1]
    assert words.endswith(
        "tests whose least p is above 0.05 (here 0.08 or more); 3 base runs like these would be enough."
    )
    assert "cannot decide" not in sections(study([9, 9, 9]))[2][1]


def test_a_change_that_did_nothing_has_p_1() -> None:
    """Its runs are the control's, bit for bit, though the control is the best of the unchanged ones."""
    found = effect(study([10, 10, 10]))
    assert (found["p"], found["test"], found["mean"]) == (1, "equal to the control", 0)
    assert effect(study([10, 10, 10.5]))["p"] < 1
    one = effect(study([math.nan, 10], unchanged=(math.nan, 11)))
    assert one["p"] == pytest.approx(8 / 9)  # ranks 2.5 of 1, 2.5, 2.5 and 1 of 1, 2, 3: 4 of 9 sums are as small
    assert effect(study([math.nan, math.inf], unchanged=(math.nan, 11)))["p"] == 1  # broke like the control


def test_seeds_of_a_change_are_runs_of_their_base_run() -> None:
    """Two changed among five: ten arrangements a base run."""
    comparison = study([9, 9], unchanged=(10, 11, 12))
    comparison.rows += [row(base, "r1-seed-1", 8) for base in ("base-0", "base-1")]
    found = effect(comparison)
    assert (found["n"], found["changed"], found["p"]) == (2, 4, pytest.approx(2 / 100))
    assert (found["mean"], found["positive"]) == ((9 - 10 + 8 - 11) / 2, 0)  # each against its own control


@pytest.mark.parametrize(("measure", "better"), [(FID, 3.0), (SPREAD, 50.0)])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_runs_that_diverge_are_worse_than_all_others(measure: str, better: float, broken: float) -> None:
    """Two of three diverge and the third is better: no mean of the third alone."""
    worse = 1 if measure == FID else -1
    found = effect(study([broken, broken, better], measure), measure)
    assert (found["n"], found["not_finite"], found["not_finite_unchanged"]) == (3, 2, 0)
    assert all(math.isnan(found[name]) for name in ("mean", "low", "high", "effect_sd", "effect_sd_se"))
    assert (found["positive"], found["negative"]) == ((2, 1) if worse > 0 else (1, 2))
    same = effect(study([worse * 1e9, worse * 1e9, better], measure), measure)
    assert (found["p"], found["p_sign"]) == (same["p"], same["p_sign"])  # as any number beyond all others
    assert effect(study([broken] * 3, measure), measure)["p"] == pytest.approx(2 / 125)


def test_an_unchanged_run_that_diverged_is_counted_too() -> None:
    comparison = study([12.5, 12.5, 12.5], unchanged=(math.nan, 11, 12, 13))
    found = effect(comparison)
    assert (found["not_finite"], found["not_finite_unchanged"], found["negative"]) == (0, 3, 3)
    assert math.isnan(found["mean"])
    spread = seed_variation(comparison).set_index("measure").loc[FID].iloc[0]
    assert (spread["n"], spread["not_finite"], spread["least"], spread["most"]) == (4, 1, 11, math.inf)
    assert math.isnan(spread["deviation"])


def test_what_was_not_recorded_is_left_out() -> None:
    """Unlike what was recorded as NaN."""
    found = effect(study([9, None, math.nan]))
    assert (found["n"], found["not_finite"]) == (2, 1)
    assert effects(study([None, None])).empty


def test_written_tables_tell_nan_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "COMPARISON_FIGURES", {})  # of runs that are nowhere
    monkeypatch.setattr(document, "base_courses", lambda comparison: [])
    comparison = study([math.nan, None, 9])
    assert table(comparison)["not_finite"].tolist().count(FID) == 1
    write_report(comparison, tmp_path)
    text = pd.read_csv(tmp_path / "compare.csv", dtype=str, keep_default_na=False)
    assert text.loc[text["entry"] == "r1", FID].tolist() == ["nan", "", "9.0"]
    shown = sections(comparison)[1][2]
    assert shown.loc[shown["entry"] == "r1", "final FID (median of 5)"].tolist() == ["nan", "-", "9"]
    assert "<td>nan</td>" in (tmp_path / "report.html").read_text()
    rows = pd.read_csv(tmp_path / "effects.csv")
    assert {"entry", "measure", "n", "not_finite", "p", "p_holm", "least_p"} <= set(rows)
    assert "1" in sections(comparison)[2][2]["not finite"].tolist()


def test_a_family_is_all_entries_of_the_plan() -> None:
    comparison = study([9, 8, 9.5])
    comparison.rows += [row(f"base-{i}", "none", 11.5) for i in range(3)]
    found = effects(comparison).set_index("entry")
    assert found.loc["r1", "p_holm"] == pytest.approx(2 * 2 / 125)
    assert found.loc["none", "p_holm"] == 1
    assert found["least_p"].tolist() == [pytest.approx(2 * 2 / 125)] * 2


def test_an_effect_in_control_sds_by_hand() -> None:
    """Unchanged deviations of 1 and 3 with 2 degrees of freedom each: pooled sqrt(5)."""
    strata = [([14.0], [9.0, 10.0, 11.0]), ([26.0, 28.0], [17.0, 20.0, 23.0])]
    found = effect_in_sds(strata)
    each = np.array([4, 7]) / math.sqrt(5)
    assert found["effect_sd"] == pytest.approx(each.mean())
    assert found["effect_sd_se"] == pytest.approx(math.sqrt(each.var(ddof=1) / 2 + each.mean() ** 2 / (2 * 4)))
    assert math.isnan(effect_in_sds(strata[:1])["effect_sd_se"])  # one base run tells nothing of others
    assert math.isnan(effect_in_sds([([1.0], [0.0, 0.0])])["effect_sd"])


def test_two_unchanged_runs_are_enough_for_a_deviation_and_one_is_not() -> None:
    found = effect_in_sds([([3.0], [0.0, 2.0])])
    assert found["effect_sd"] == pytest.approx(2 / 2**0.5)
    assert math.isnan(found["effect_sd_se"])
    assert math.isnan(effect_in_sds([([3.0], [0.0])])["effect_sd"])


def test_the_standard_error_is_how_effects_scatter() -> None:
    """1,500 studies of six base runs with eight unchanged runs each, an effect of 2 and its own scatter of 0.5."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(1500):
        shifts = 2 + 0.5 * random.normal(size=6)
        strata = [([shift + random.normal()], random.normal(size=8).tolist()) for shift in shifts]
        found.append(list(effect_in_sds(strata).values()))
    values, errors = np.array(found).T
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.05)


def test_paired_differences_without_a_sign() -> None:
    """Both of a pair diverged: no sign, and no mean of the others alone."""
    found = paired([math.nan, 1.0, math.inf])
    assert (found["positive"], found["negative"], found["p_sign"]) == (2, 0, 0.5)
    assert math.isnan(found["mean"])


def test_a_delay_is_tested_against_all_unchanged_runs() -> None:
    """Every change collapses first of five, in three base runs."""
    comparison = study([None] * 3)
    for one in comparison.rows:
        one.outcome.collapse = 300 if one.name == "r1" else 500 + len(one.name)
    found = effect(comparison, "delay")
    assert (found["n"], found["p"], found["test"]) == (3, pytest.approx(2 / 125), "log-rank, exact")
    assert (found["mean"], found["negative"]) == (300 - 507, 3)
    tests = survival_tests(comparison).set_index("entry").loc["r1"]
    assert (tests["p"], tests["collapsed"], tests["n_unchanged"]) == (found["p"], 3, 12)
    for one in comparison.rows:
        one.outcome.collapse = 507 if one.name == "r1" else one.outcome.collapse
    assert effect(comparison, "delay")["p"] == 1  # the controls' own steps


def test_a_branch_too_short_to_judge_is_not_at_risk() -> None:
    comparison = study([9.0])
    short = comparison.rows[-1].outcome
    for until in (None, 100):
        short.judged_until = until
        assert (short.at_risk, short.too_short) == (False, True)
        assert survival_tests(comparison).empty
        assert sections(comparison)[1][2]["collapse at"].tolist()[-1] == "too short to judge"
    short.judged_until = 500
    assert (short.at_risk, short.survived) == (True, 400)
    assert sections(comparison)[1][2]["collapse at"].tolist()[-1] == "none by 500"


def scalars(values: list[float]) -> pd.DataFrame:
    steps = range(1, len(values) + 1)
    parts = [pd.DataFrame({"step": steps, "name": f"loss/D_{part}", "value": values}) for part in ("real", "fake")]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_drawn_series_end_where_they_cease_to_be_finite(broken: float) -> None:
    """A running mean that passes over NaN would go on with the others."""
    values = [1.0] * 40 + [broken] + [1.0] * 40
    _, smooth = d_loss_series({"scalars": scalars(values)}, 0)
    assert [math.isfinite(value) for value in smooth] == [True] * 40 + [False] * 25 + [True] * 16
    sigmas = pd.DataFrame({"step": [1, 1, 2, 2], "network": "G", "sigma0": [1.0, 2.0, 1.0, broken]})
    assert not math.isfinite(sigma_series({"spectra": sigmas}, 0, "G")[1][-1])
    axes = new_figure(2).subplots()
    mark_broken(axes, ([1, 2, 3, 4], [1.0, broken, broken, 2.0]), {"color": "red"})
    assert [line.get_xdata().tolist() for line in axes.lines] == [[2]]


def test_survival_by_hand() -> None:
    """Kaplan-Meier of one run a base run: collapses at 200 and 400 steps after the branching point, one censored."""
    comparison = study([None] * 3)
    changed = [one.outcome for one in comparison.rows if one.name == "r1"]
    changed[0].collapse, changed[1].collapse, changed[2].judged_until = 300, 500, 350
    function = survival(comparison, "r1")
    assert function.quantiles.tolist() == [200, 250, 400]
    assert function.probabilities.tolist() == pytest.approx([2 / 3, 2 / 3, 0])


def test_a_change_that_moves_one_collapse_of_two_has_done_something() -> None:
    comparison = study([None] * 2, unchanged=(10, 11))
    for one in comparison.rows:
        one.outcome.collapse = {"control": 500, "control-seed-1": 600}.get(one.name, 500)
    assert effect(comparison, "delay")["test"] == "equal to the control"
    comparison.rows[-1].outcome.collapse = 450
    assert effect(comparison, "delay")["test"] == "log-rank, exact"


def test_seed_variation_of_two_runs() -> None:
    found = seed_variation(study([9.0], unchanged=(10, 14))).set_index("measure").loc[FID]
    assert (found["n"], found["least"], found["most"]) == (2, 10, 14)
    assert found["deviation"] == pytest.approx(8**0.5)
    assert seed_variation(study([9.0], unchanged=(10,))).empty


def test_the_interval_of_paired_differences_is_that_of_scipy() -> None:
    from scipy.stats import ttest_1samp

    differences = [1.0, 2.5, -0.5, 4.0]
    found, truth = paired(differences), ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((truth.low, truth.high))
    assert found["mean"] == pytest.approx(1.75)


def test_a_control_that_was_never_at_risk_has_no_delay() -> None:
    comparison = study([None], unchanged=(10, 11))
    control, other, changed = (one.outcome for one in comparison.rows)
    control.collapse, control.collapsed_before, changed.collapse, other.collapse = 50, True, 300, 500
    assert "delay" not in set(effects(comparison)["measure"])
    control.collapse, control.collapsed_before = 400, False
    assert effect(comparison, "delay")["mean"] == -100


def test_an_entry_that_was_never_at_risk_hides_no_other() -> None:
    comparison = study([9.0])
    comparison.rows.insert(0, row("base-0", "early", 9.0, collapse=50, collapsed_before=True))
    assert comparison.entries() == ["early", "r1"]
    assert survival_tests(comparison)["entry"].tolist() == ["r1"]


def test_on_which_side_what_is_not_finite_stands() -> None:
    """FID, losses and sigma_0 break upwards, spread and accuracies downwards."""
    worse = {name: side for name, side in COMPARED.items() if name != "delay"}
    up = ("fid", "D_loss", "sigma", "spikes", "auc/train_val", "gap")
    assert {name for name, side in worse.items() if side > 0} == {n for n in worse if any(one in n for one in up)}
    assert {name for name, side in worse.items() if side < 0} >= {
        "last_spread_raw",
        "D/accuracy/val",
        "D/auc/real_fake",
    }
    assert COMPARED["delay"] < 0


def test_collapses_in_the_last_evaluations_are_tested_and_do_not_end_the_curve() -> None:
    """Three of three begin where the unchanged ones could no longer have been judged: each is one of four, whichever
    collapsed (2 / 4^3). The curve says nothing of the time after that."""
    comparison = study([None] * 3, unchanged=(10, 11, 12))
    changed = [one.outcome for one in comparison.rows if one.name == "r1"]
    for one in changed:
        one.collapse = 950
    assert survival_tests(comparison).set_index("entry").loc["r1", "p"] == pytest.approx(2 / 64)
    assert survival(comparison, "r1").probabilities.tolist() == [1]
    changed[0].collapse = 500
    function = survival(comparison, "r1")
    assert dict(zip(function.quantiles.tolist(), function.probabilities.tolist(), strict=True)) == {
        400: pytest.approx(2 / 3),
        800: pytest.approx(2 / 3),
    }


def test_a_change_that_did_nothing_has_p_1_whether_or_not_its_pairs_collapsed() -> None:
    comparison = study([None] * 4)
    for one in comparison.rows:
        if one.base != "base-3":
            one.outcome.collapse = 300 if one.name in ("r1", "control") else 600
    assert effect(comparison, "delay")["p"] == 1
    assert survival_tests(comparison)["p"].tolist() == [1]
    comparison.rows[-1].outcome.collapse = 500
    assert survival_tests(comparison)["p"].tolist() != [1]


def test_entries_that_have_not_begun_are_of_the_family() -> None:
    comparison = study([9, 8, 9.5])
    comparison.planned = ["r1", "freeze-D", "freeze-G", "lr-x2", "r1-1", "dropout"]
    found = effect(comparison)
    assert (found["p"], found["p_holm"], found["least_p"]) == pytest.approx((0.016, 0.096, 0.096))
    assert survival_tests(comparison)["least_p"].tolist() == pytest.approx([0.096])
