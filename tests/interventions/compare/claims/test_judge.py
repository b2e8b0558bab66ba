"""Verdicts on made-up studies whose answer is known, with effects, intervals and p values from scipy."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from biggan.errors import UserError
from interventions.compare.claims import Claim, Verdict, judge_claims, read_claims, verdicts_table
from interventions.compare.claims.effects import interval, pooled_deviation, signed_rank_p
from interventions.compare.collect import Comparison, Row
from interventions.compare.outcome import RunOutcome

FID = "best_fid_raw_median5"
BEGIN, END = 1000, 2300


def row(base: int, entry: str, collapse: int | None = None, seed: int | None = None, **numbers: float | None) -> Row:
    """A run of a study: branches begin at step 1,000, runs from scratch (plain, scratch-*) at 0."""
    scratch = entry.startswith(("plain", "scratch"))
    begin = 0 if scratch else BEGIN
    outcome = RunOutcome(Path(f"seed-{base}/{entry}"), begin, END, True, collapse, judged_until=END - 100)
    outcome.ended, outcome.numbers = "finished", {name.replace("__", "/"): one for name, one in numbers.items()}
    kind = "scratch" if scratch else "branch" if entry != "control" else "control" if seed is None else "seed"
    return Row(f"seed-{base}", entry, kind, outcome, seed)


def claim(
    expect: object, measure: str = "survived", entries: tuple[str, ...] = ("changed",), **fields: object
) -> Claim:
    return Claim("10a", "text", "G.1", "definition", measure, expect, entries, **fields)  # type: ignore[arg-type]


def judge(rows: list[Row], *claims: Claim) -> Verdict:
    return judge_claims(Comparison(rows), list(claims))[0]


def branches(steps: list[int | None], unchanged: tuple[int | None, ...] = (500, 600, 700)) -> list[Row]:
    """One changed branch a base run, collapsing so many steps after the branch, beside three unchanged ones."""
    rows = []
    for base, step in enumerate(steps):
        seeds = [None, *range(1, len(unchanged))]
        times = [None if one is None else BEGIN + one for one in unchanged]
        rows += [row(base, "control", time, seed) for time, seed in zip(times, seeds, strict=True)]
        rows.append(row(base, "changed", None if step is None else BEGIN + step))
    return rows


def test_an_earlier_collapse_supports_and_a_later_one_contradicts() -> None:
    """All of three base runs on one side: one of 4^3 arrangements on each side."""
    found = judge(branches([100, 200, 0]), claim("less", median_at_most=0.5))
    assert (found.verdict, found.n, found.unit) == ("supported", 3, "steps")
    assert (found.p, found.p_holm, found.least_p) == (pytest.approx(2 / 64),) * 3
    assert found.effect == pytest.approx(-500)  # 100 - 600, 200 - 600, 0 - 600
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 2, -500, 100 / math.sqrt(3)))
    assert "3 of 3 collapsed, median 100 steps; unchanged: 9 of 9, median 600 steps" in found.reason
    assert judge(branches([900, None, 1000]), claim("less")).verdict == "contradicted"
    assert judge(branches([900, None, 1000]), claim("more")).verdict == "supported"


def test_a_control_that_the_place_was_chosen_by_is_left_out() -> None:
    """Its collapse at 500 is why the point lies there; the other seeds collapse at 600 and 700."""
    comparison = Comparison(branches([550, 550, 550]))
    assert judge_claims(comparison, [claim("less")])[0].p > 0.05
    comparison.placed_by_collapse = {"seed-0", "seed-1", "seed-2"}
    found = judge_claims(comparison, [claim("less")])[0]
    assert (found.p, found.effect) == (pytest.approx(2 / 27), pytest.approx(550 - 650))
    alone = Comparison([row for row in comparison.rows if row.seed is None], placed_by_collapse={"seed-0"})
    assert judge_claims(alone, [claim("less")])[0].n == 3  # without other seeds it is all there is


def test_earlier_alone_is_not_at_once() -> None:
    found = judge(branches([400, 400, 450]), claim("less", median_at_most=0.5))
    assert (found.verdict, found.p_holm) == ("undecided", pytest.approx(2 / 64))
    assert "in the claimed direction, but the median is 0.67 of the unchanged runs'" in found.reason
    assert judge(branches([400, 400, 450]), claim("less")).verdict == "supported"


def test_too_few_base_runs_say_how_many_are_needed() -> None:
    """Two give 2 / 16; the third 2 / 64."""
    found = judge(branches([100, 200]), claim("less"))
    assert (found.verdict, found.least_p, found.bases_needed) == ("undecided", pytest.approx(2 / 16), 3)
    assert "this design gives no smaller p (Holm) than 0.12" in found.reason
    assert found.reason.endswith("needs 1 more base run")


def test_the_correction_counts_claims_that_were_not_run() -> None:
    """The family is that of claims.yaml, whatever was run of it; claims of equivalence are no tests of it."""
    others = [claim("less", entries=("not-run",)), claim((0.0, None), entries=("not-run",))]
    others = [Claim(**{**vars(one), "claim": name}) for one, name in zip(others, ("11", "12"), strict=True)]
    found = judge_claims(Comparison(branches([100, 200, 0])), [claim("less"), *others])
    assert [one.verdict for one in found] == ["undecided", "not run", "not run"]
    assert found[0].p_holm == pytest.approx(2 * 2 / 64)
    assert math.isnan(found[1].p_holm)


def test_no_difference_is_an_interval_within_a_deviation_of_the_unchanged_runs() -> None:
    """The unchanged runs 500, 600, 700 have the deviation 100."""
    near = [[610, 590, 600], [590, 600, 620]]
    for times in near:
        assert judge(branches(times), claim("equal")).verdict == "supported"
    far = judge(branches([900, 910, 890]), claim("equal"))
    assert far.verdict == "contradicted"
    assert "claimed: -100 to 100" in far.reason
    wide = judge(branches([400, 600, 800]), claim("equal"))
    assert (wide.verdict, wide.effect) == ("undecided", pytest.approx(0))
    assert (wide.bases_needed or 0) > 3
    assert judge(branches([900, 910, 890]), claim("not_less")).verdict == "supported"
    assert judge(branches([900, 910, 890]), claim("not_more")).verdict == "contradicted"
    assert math.isnan(judge(branches([900, 910, 890]), claim("equal")).p)  # an interval decides, not a test


def test_a_stable_training_is_later_and_keeps_most_runs() -> None:
    stable = claim("more", most_collapsed=0.25)
    assert judge(branches([None] * 4), stable).verdict == "supported"
    half = judge(branches([None, None, 1100, 1150]), stable)
    assert (half.verdict, half.p_holm <= 0.05) == ("undecided", True)
    assert "more than 25% of them collapsed" in half.reason
    most = judge(branches([1100, 1150] * 5), stable)
    low = float(stats.beta.ppf(0.025, 10, 1))  # Clopper and Pearson's, for 10 of 10
    assert (most.verdict, f"at least {low:.0%} of such runs" in most.reason) == ("contradicted", True)


def test_runs_from_scratch_are_held_against_all_unchanged_ones() -> None:
    """Seeds are exchangeable without a change, so one stratum: as the exact Mann-Whitney test."""
    plain, changed = [10.0, 11.0, 12.0, 13.5, 15.0], [14.0, 16.0, 17.0, 19.0]
    rows = [row(i, "plain", **{FID: one}) for i, one in enumerate(plain)]
    rows += [row(i, "scratch-r1", **{FID: one}) for i, one in enumerate(changed)]
    found = judge(rows, claim("more", FID, ("scratch-r1",)))
    assert found.p == pytest.approx(stats.mannwhitneyu(changed, plain, method="exact").pvalue)
    ratios = np.log(np.array(changed) / plain[:4])
    mean, low, high = (math.exp(one) for one in interval(list(ratios)))
    assert (found.effect, found.low, found.high, found.unit) == (
        *(pytest.approx(one) for one in (mean, low, high)),
        "ratio",
    )
    assert found.verdict == "supported"


def test_numbers_that_are_not_finite_count_as_worse_than_all() -> None:
    rows = [row(i, "plain", **{FID: 10.0 + i}) for i in range(5)]
    rows += [row(i, "scratch-r1", **{FID: [math.nan, math.inf, 30.0, 40.0][i]}) for i in range(4)]
    found = judge(rows, claim("more", FID, ("scratch-r1",)))
    assert (found.verdict, found.p) == ("supported", pytest.approx(2 / math.comb(9, 4)))
    assert math.isnan(found.effect)
    assert found.as_json()["effect"] is None
    json.dumps([one.as_json() for one in judge_claims(Comparison(rows))], allow_nan=False)


def test_a_change_that_did_nothing_has_p_1() -> None:
    rows = branches([500])
    for one in rows:
        one.outcome.numbers["D_loss_end"] = 0.5 if one.seed is None else 0.9
    assert judge(rows, claim("less", "D_loss_end")).p == 1


def test_a_number_of_the_unchanged_runs_is_tested_by_signed_ranks() -> None:
    values = [1.2, 1.5, 1.1, 1.9, 2.2, 0.97]
    rows = [row(i, "plain", G_first_growth_over_others=one) for i, one in enumerate(values)]
    found = judge(rows, claim("more", "G_first_growth_over_others", ()))
    logs = np.log(values)
    assert found.p == pytest.approx(stats.wilcoxon(logs, mode="exact").pvalue)
    assert found.effect == pytest.approx(stats.gmean(values))
    # One infinite value: it ranks above all, and leaves no mean.
    rows.append(row(9, "plain", G_first_growth_over_others=math.nan))
    broken = judge(rows, claim("more", "G_first_growth_over_others", ()))
    assert math.isnan(broken.effect)
    assert broken.p == pytest.approx(signed_rank_p([*logs, math.inf]))


def test_a_region_is_decided_by_the_interval() -> None:
    def shares(*values: float) -> Verdict:
        rows = [row(i, "plain", **{"D__accuracy__train_before": one}) for i, one in enumerate(values)]
        return judge(rows, claim((0.98, None), "D/accuracy/train_before", ()))

    assert shares(0.99, 1.0, 0.995).verdict == "supported"
    assert shares(0.9, 0.92, 0.91).verdict == "contradicted"
    assert shares(0.97, 1.0, 0.99).verdict == "undecided"
    wide = shares(0.5, 1.0, 0.6)
    assert (wide.high, "claimed: at least 98%" in wide.reason) == (1.0, True)
    one = shares(0.99)
    assert (one.verdict, one.bases_needed) == ("undecided", None)
    assert "no interval is known" in one.reason


def test_a_size_that_the_interval_excludes_contradicts() -> None:
    def jumps(*values: float) -> Verdict:
        rows = [row(i, "plain", 900, D_loss_jump=one) for i, one in enumerate(values)]
        return judge(rows, claim("more", "D_loss_jump", (), size=2.0, premise="plain_collapses"))

    assert jumps(0.9, 0.95, 1.0, 0.85, 0.9, 0.8).verdict == "contradicted"  # the interval ends below 2
    grown = jumps(2.5, 2.6, 3.0, 2.2, 2.4, 2.9)
    assert (grown.verdict, grown.p) == ("supported", pytest.approx(2 / 64))
    small = jumps(1.7, 1.9, 2.6, 1.5, 1.8, 2.0)
    assert (small.verdict, "smaller than the 2 of the claim" in small.reason) == ("undecided", True)


def test_a_claim_without_its_premise_is_not_judged() -> None:
    rows = branches([100, 100, 100], unchanged=(None, None, None))
    found = judge(rows, claim("less", premise="controls_collapse"))
    assert (found.verdict, found.premise_met) == ("premise not met", False)
    assert found.premise == "unchanged branches collapse in 0 of 3 base runs (at least 2 needed)"


def test_the_share_that_collapses_is_that_of_the_entry_with_the_fewest() -> None:
    rows = [row(i, "scratch-a", 900) for i in range(8)] + [row(i, "scratch-b", 900 if i else None) for i in range(8)]
    found = judge(rows, claim((0.5, None), "share_collapsed", ("scratch-a",)))
    assert (found.verdict, found.effect, found.high) == ("supported", 1, 1)
    assert found.low == pytest.approx(stats.beta.ppf(0.025, 8, 1))
    both = judge(rows, claim((0.5, None), "share_collapsed", ("scratch-a", "scratch-b")))
    assert (both.effect, both.n) == (7 / 8, 8)
    assert "7 of 8 runs collapsed with scratch-b, the fewest" in both.reason


def test_a_change_that_prevents_it_contradicts_that_none_does() -> None:
    rows = [row(i, f"scratch-{name}", 900 if name != "c" else None) for i in range(8) for name in "abc"]
    found = judge(rows, claim((0.5, None), "share_collapsed", ("scratch-a", "scratch-b", "scratch-c")))
    assert (found.verdict, found.effect) == ("contradicted", 0)


def test_a_sweep_is_supported_by_all_of_it() -> None:
    """A claim about several changes: one that was not run leaves it open, and one that was may contradict it."""
    rows = branches([None] * 4)
    found = judge(rows, claim("more", most_collapsed=0.25, entries=("changed", "weaker", "weakest")))
    assert (found.verdict, found.p_holm <= 0.05) == ("undecided", True)
    assert "not run yet: weaker, weakest" in found.reason
    assert judge(rows, claim("less", entries=("changed", "weaker"))).verdict == "contradicted"


def test_runs_that_have_not_ended_take_no_part() -> None:
    rows = branches([100, 200, 0, None])
    rows[-1].outcome.ended = None
    assert judge(rows, claim("less")).n == 3


def test_unchanged_runs_that_do_not_differ_give_no_scale() -> None:
    found = judge(branches([None] * 4, unchanged=(None, None, None)), claim("equal"))
    assert (found.verdict, found.effect) == ("undecided", 0)
    assert "do not differ" in found.reason


def test_what_the_correction_leaves_significant_is_decided() -> None:
    """The bound is that of a family's smallest p; Holm multiplies the later ones by less. Of two tests, 7 base runs
    give 2 / 128 and 6 give 2 / 64: the bound of the second is 2 * 2 / 64 > 0.05, and its p_holm 2 / 64."""
    rows = [row(i, "plain", D_loss_jump=None if i == 0 else 9.0, fall_share=0.5) for i in range(7)]
    one, other = claim("more", "D_loss_jump", ()), Claim(**{**vars(claim("more", "fall_share", ())), "claim": "20"})
    found = judge(rows, one, other)
    assert (found.least_p, found.p_holm) == (pytest.approx(2 * 2 / 64), pytest.approx(2 / 64))
    assert found.verdict == "supported"


def test_one_base_run_decides_no_test() -> None:
    rows = [row(i, "plain", **{FID: 10.0 + i}) for i in range(40)] + [row(0, "scratch-a", **{FID: 90.0})]
    found = judge(rows, claim("more", FID, ("scratch-a",)))
    assert (found.verdict, found.n) == ("undecided", 1)
    assert found.p_holm <= 0.05
    assert "one base run decides nothing" in found.reason


def test_several_changes_of_one_seed_are_one() -> None:
    """Forty unchanged seeds, and one changed seed with four entries: one of 41 places on each side, not of C(44, 4)."""
    rows = [row(i, "plain", **{FID: 10.0 + i}) for i in range(40)]
    rows += [row(0, f"scratch-{name}", **{FID: 90.0}) for name in "abcd"]
    found = judge(rows, claim("more", FID, tuple(f"scratch-{name}" for name in "abcd")))
    assert found.p == pytest.approx(2 / 41)


def test_a_run_that_broke_is_not_too_small() -> None:
    """A frozen D whose loss is NaN is the strongest evidence, not the weakest; the median decides the size."""
    rows = [row(i, "control", None, seed, D_loss_peak_mean10=1.0 + seed) for i in range(5) for seed in (0, 1)]
    rows += [row(i, "changed", D_loss_peak_mean10=math.nan if i == 0 else 9.0) for i in range(5)]
    found = judge(rows, claim("more", "D_loss_peak_mean10", size=3))
    assert (found.verdict, math.isnan(found.effect)) == ("supported", True)
    assert judge(rows, claim("more", "D_loss_peak_mean10", size=30)).verdict == "undecided"


def test_an_unchanged_median_that_is_not_reached_is_at_least_as_long_as_what_was_seen() -> None:
    found = judge(branches([0, 0, 0, 0], unchanged=(500, None, None)), claim("less", median_at_most=0.5))
    assert found.verdict == "supported"


def test_numbers_beyond_the_largest_are_infinite() -> None:
    rows = [row(i, "plain", D_loss_jump=one) for i, one in enumerate((1.0, 1e200))]
    found = judge(rows, claim("more", "D_loss_jump", ()))
    assert (found.verdict, found.high) == ("undecided", math.inf)


def test_the_premise_counts_the_runs_that_a_claim_is_judged_by() -> None:
    rows = [row(i, "control", BEGIN + 500) for i in range(4)]
    rows += [row(i, "control", None, 1) for i in range(4)] + [row(i, "changed") for i in range(4)]
    placed = Comparison(rows, placed_by_collapse={f"seed-{i}" for i in range(4)})
    found = judge_claims(placed, [claim("less", premise="controls_collapse")])[0]
    assert found.premise == "unchanged branches collapse in 0 of 4 base runs (at least 2 needed)"


def test_a_change_that_equals_the_control_has_p_1() -> None:
    rows = branches([500, 500, 500], unchanged=(500, 900, 900))
    assert judge(rows, claim("less")).p == 1


def test_runs_from_scratch_need_more_seeds_of_their_own() -> None:
    """Twenty tests: with five seeds beside five the smallest p is 20 * 2 / 252; with six 20 * 2 / 924 is below 0.05."""
    rows = [row(i, "plain", **{FID: 10.0 + i}) for i in range(5)] + [
        row(i, "scratch-a", **{FID: 90.0 + i}) for i in range(5)
    ]
    others = [Claim(**{**vars(claim("less", entries=("no",))), "claim": str(n)}) for n in range(19)]
    found = judge(rows, claim("more", FID, ("scratch-a",)), *others)
    assert (found.verdict, found.bases_needed) == ("undecided", 6)


@pytest.mark.parametrize("seed", range(20))
def test_signed_ranks_against_all_signs(seed: int) -> None:
    """With ties and zeros, where scipy's exact test does not go."""
    random = np.random.default_rng(seed)
    values = [float(one) for one in random.integers(-3, 5, random.integers(1, 9))]
    known = [one for one in values if one]
    if not known:
        assert math.isnan(signed_rank_p(values))
        return
    ranks = stats.rankdata(np.abs(known))
    sums = [float(np.dot(signs, ranks)) for signs in itertools.product((-1, 1), repeat=len(known))]
    observed = float(np.dot(np.sign(known), ranks))
    tail = min(sum(one <= observed for one in sums), sum(one >= observed for one in sums)) / len(sums)
    assert signed_rank_p(values) == pytest.approx(min(1, 2 * tail))


def test_the_pooled_deviation() -> None:
    groups = [[1.0, 2.0, 4.0], [5.0, 9.0], [7.0], [1.0, math.inf]]
    squares = np.var(groups[0], ddof=1) * 2 + np.var(groups[1], ddof=1)
    assert pooled_deviation(groups) == pytest.approx(math.sqrt(squares / 3))
    assert math.isnan(pooled_deviation([[1.0]]))


def test_a_trend_is_a_correlation_within_base_runs() -> None:
    values = [[10.0, 12.0, 11.0, 20.0], [5.0, 6.0, 7.0, math.inf], [9.0, 8.0, 9.0, 10.0]]
    rows = [row(i, f"scratch-{n}", **{FID: one}) for i, mine in enumerate(values) for n, one in enumerate(mine)]
    found = judge(rows, claim("more", FID, tuple(f"scratch-{n}" for n in range(4)), trend=True))
    rhos = [stats.spearmanr(range(4), stats.rankdata(mine)).statistic for mine in values]
    assert (found.effect, found.unit, found.p) == (pytest.approx(np.mean(rhos)), "correlation", pytest.approx(2 / 8))


def test_an_entry_can_take_the_place_of_the_unchanged_runs() -> None:
    rows = [row(i, "plain", **{FID: 1.0}) for i in range(4)]
    rows += [row(i, "scratch-a", **{FID: 20.0 + i}) for i in range(4)]
    rows += [row(i, "scratch-b", **{FID: 10.0 + i}) for i in range(4)]
    found = judge(rows, claim("less", FID, ("scratch-b",), against="scratch-a"))
    assert (found.verdict, found.p) == ("supported", pytest.approx(2 / math.comb(8, 4)))
    assert found.effect == pytest.approx(stats.gmean([(10 + i) / (20 + i) for i in range(4)]))


def test_every_claim_of_the_paper_has_an_entry() -> None:
    from interventions.compare.figures.registry import COMPARISON_FIGURES

    claims = read_claims()
    assert not [one for one in claims if one.definition.startswith("as ")]
    assert not [one.figure for one in claims if one.figure and one.figure not in COMPARISON_FIGURES]
    assert {int(one.claim.rstrip("abcdefgh")) for one in claims if one.family == "claims"} == set(range(1, 22))
    assert len(verdicts_table(judge_claims(Comparison(branches([100, 200, 0]))))) == len(claims)


def test_every_entry_of_a_claim_is_in_a_shipped_plan() -> None:
    from interventions.study.plan import read_plan, shipped_plans

    known = {entry.name for plan in shipped_plans() for entry in read_plan(plan).entries}
    needed = {name for one in read_claims() for name in (*one.entries, *filter(None, [one.against]))}
    assert needed <= known


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {claim: 1, text: a, place: b}", "claim 1 has no definition"),
        ("- {claim: 1, text: a, place: b, definition: c, meazure: survived}", "meazure"),
        ("- {claim: 1, text: a, place: b, definition: c, measure: survivd, expect: less}", "survivd"),
        ("- {claim: 1, text: a, place: b, definition: c, measure: survived, expect: lots}", "lots"),
        ("- {claim: 1, text: a, place: b, definition: c, measure: survived, expect: [1]}", r"\[low, high\]"),
        ("- {claim: 1, text: a, place: b, definition: c, measure: survived, expect: less, premise: no}", "premise"),
        ("- &a {claim: 1, text: a, place: b, definition: c, impossible: d}\n- *a", "two claims called 1"),
        ("- {claim: 1, text: a, place: b, definition: as 7, impossible: d}", "which there is not"),
        ("claim: 1", "not a list of claims"),
        ("- [", "cannot be read"),
    ],
)
def test_a_faulty_file_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        read_claims(tmp_path / "claims.yaml")
