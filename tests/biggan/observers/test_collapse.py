"""Collapse on series whose answer is known, online and whole alike, its recovery, and the recorded runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from series import evaluations

from biggan.observers.collapse import Collapse, CollapseJudgement, collapse, judge_collapse
from biggan.observers.collapse_of_run import collapse_of, judge_events
from spectra.detect.table import finding_rows
from spectra.record.events import read_event_lines

STEPS = list(range(100, 6100, 100))
NAN = math.nan


def noisy(values: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    return values * np.exp(share * np.random.default_rng(seed).standard_normal(len(values)))


def fids(low: float, seed: int = 0, start: float = 2000.0) -> np.ndarray:
    """Falls to `low`, with single evaluations that jump by 1.2 to 2.4 times."""
    x = np.arange(60)
    values = noisy(low + start * np.exp(-x / 3), 0.05, seed)
    values[7::11] *= 2.4
    values[5::6] *= 1.3
    return values


def spreads(high: float = 0.8) -> np.ndarray:
    """A young generator's spread: that of noise at first, then less, then that of a healthy one."""
    values = high * (1 - np.exp(-np.arange(60) / 4.0))
    values[:5] = 1.6, 1.5, 1.2, 0.5, 0.3
    return values


@pytest.mark.parametrize("seed", range(5))
def test_no_collapse_in_healthy_and_slow_runs(seed: int) -> None:
    assert collapse(STEPS, noisy(spreads(), 0.05, seed), fids(100, seed)) is None
    slow = 1000 * 0.95 ** np.arange(60)  # still young after sixty evaluations: no modes, but better and better
    assert collapse(STEPS, np.full(60, 0.02), noisy(slow, 0.02, seed)) is None
    assert collapse(STEPS, np.full(60, NAN), fids(100, seed)) is None
    assert collapse(STEPS, spreads(), np.full(60, NAN)) is None


def test_collapse_after_being_healthy() -> None:
    """Modes are lost, or quality is, each from step 4100 on: said soon, dated to the last good evaluation."""
    spread, fid = noisy(spreads(), 0.03), fids(100)
    lost = spread.copy()
    lost[40:] *= np.maximum(0.1, 0.5 ** np.arange(1, 21))
    found = collapse(STEPS, lost, fid)
    assert (found.kind, found.details["rule"]) == ("collapse", "modes_lost")
    assert 3900 <= found.onset <= 4200
    assert 4200 < found.step <= 4700
    worse = fid.copy()
    worse[40:] *= 5
    found = collapse(STEPS, spread, worse)
    assert found.details["rule"] == "quality_lost"
    assert 3900 <= found.onset <= 4300
    assert 4200 <= found.step <= 4800
    assert found.details["fid"] > 2 * found.details["best_fid_median"]


def test_a_run_that_never_got_its_modes() -> None:
    spread = np.maximum(0.03, 0.4 * np.exp(-np.arange(60) / 3.0))
    fid = noisy(160 + 2000 * np.exp(-np.arange(60) / 2.0), 0.03)
    found = collapse(STEPS, np.minimum(spread, 0.25), fid)
    assert found.details["rule"] == "no_modes"
    assert 500 <= found.onset < found.step <= 3500
    assert collapse(STEPS, np.full(60, 0.03), np.full(60, NAN)).details["rule"] == "no_modes"


def test_collapse_online_is_collapse_on_the_whole_series() -> None:
    spread, fid = spreads(), fids(100)
    spread[30:], fid[12], spread[15] = 0.05, NAN, math.inf
    detector = Collapse()
    online = [f for row in zip(STEPS, spread, fid, strict=True) if (f := detector.update(*row))]
    assert online == judge_collapse(STEPS, spread, fid).findings == [collapse(STEPS, spread, fid)]
    assert collapse(STEPS, spread, fid, patience=8).step == online[0].step + 500
    json.dumps(online[0].details, allow_nan=False)
    with pytest.raises(TypeError, match="pateince"):
        Collapse(pateince=3)


GOOD, BAD = (0.8, 20.0), (0.7, 200.0)


def judged(*evaluations: tuple[float, float], **thresholds: float) -> CollapseJudgement:
    """Of (spread, FID) at steps 10, 20, ..."""
    steps = range(10, 10 * len(evaluations) + 1, 10)
    return judge_collapse(steps, *zip(*evaluations, strict=True), **thresholds)


def test_a_deep_fall_is_said_after_two_evaluations_and_dated_to_the_last_good_one() -> None:
    judgement = judged(*[GOOD] * 8, (0.8, 45.0), GOOD, *[BAD] * 2)
    (fall,) = judgement.findings
    assert (fall.kind, fall.onset, fall.step) == ("collapse", 100, 120)
    assert judgement.lasting == fall
    assert fall.details == {
        "rule": "quality_lost", "fid": 200, "fid_median": 45, "best_fid_median": 20, "spread": 0.7, "best_spread": 0.8,
    }  # fmt: skip
    assert judged(*[GOOD] * 10, BAD).findings == judged(*[GOOD] * 10, BAD, *[GOOD] * 10, BAD, GOOD).findings == []
    assert judged(*[GOOD] * 10, (0.8, math.inf), (0.8, math.inf)).findings[0].onset == 100


def test_the_best_spread_is_the_true_one_while_the_generator_was_good() -> None:
    """Neither the cap up to which spread is judged nor the spread of a generator that has learnt nothing, 1.6."""
    young, fall = [(1.6, 900.0)] * 4 + [(1.2, 300.0)] * 2, [(0.1, 200.0)] * 2
    assert judged(*young, *[(0.95, 20.0)] * 8, *fall).findings[0].details["best_spread"] == 0.95
    assert judged(*young, *[(0.6, 20.0)] * 8, *fall).findings[0].details["best_spread"] == 0.6


def test_a_fall_to_three_times_the_best_is_one() -> None:
    (fall,) = judged(*[GOOD] * 10, *[(0.8, 60.0)] * 8).findings
    assert (fall.onset, fall.step) == (100, 150)  # log2(3 / 2) an evaluation, until there is 2.5 of it
    assert judged(*[GOOD] * 10, *[(0.8, 38.0)] * 30).findings == []


def test_a_spread_below_half_is_no_collapse_while_the_fid_gets_better() -> None:
    better = [(0.35, 20 * 0.95**i) for i in range(1, 13)]
    assert judged(*[GOOD] * 6, *better).findings == []
    (fall,) = judged(*[GOOD] * 6, *[(0.35, 20.0)] * 12).findings
    assert (fall.details["rule"], fall.onset, fall.step) == ("modes_lost", 60, 90)


def test_a_dip_is_a_collapse_that_recovers_and_no_lasting_one() -> None:
    dip = [*[GOOD] * 10, *[BAD] * 5, *[GOOD] * 5]
    once = judged(*dip, *[GOOD] * 20)
    assert [(f.kind, f.onset, f.step) for f in once.findings] == [("collapse", 100, 120), ("recovered", 160, 180)]
    assert once.lasting is None
    again = judged(*dip, *[BAD] * 10)  # once recovered it takes twice the evidence
    assert [(f.kind, f.onset, f.step) for f in again.findings[2:]] == [("collapse", 200, 240)]
    assert again.lasting == again.findings[2]
    # A recovery that comes after so many evaluations is one all the same, but the collapse had been for good.
    late = judged(*[GOOD] * 10, *[BAD] * 20, *[GOOD] * 5)
    assert [f.kind for f in late.findings] == ["collapse", "recovered"]
    assert late.lasting == late.findings[0]
    assert judged(*[GOOD] * 10, *[BAD] * 20, *[GOOD] * 5, lasting=22).lasting is None


def test_until_when_an_onset_could_have_been_found() -> None:
    assert judged(*[GOOD] * 20).judged_until == 150
    assert judged(*[GOOD] * 10).judged_until == 50
    assert judged(*[GOOD] * 9).judged_until is None  # there would be no best before it
    assert judged(*[GOOD] * 20, *[(NAN, NAN)] * 5).judged_until == 150
    assert judge_collapse([], [], []) == CollapseJudgement([], None, None)


def test_well_until_stands_still_from_the_first_doubt_to_the_recovery() -> None:
    detector, seen = Collapse(), []
    for step, (spread, fid) in enumerate([*[GOOD] * 6, *[BAD] * 3, *[GOOD] * 4], 1):
        detector.update(step, spread, fid)
        seen.append(detector.well_until)
    assert seen == [1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6, 12, 13]


@pytest.mark.parametrize("every", [50, 100, 200, 500])
@pytest.mark.parametrize("kind", ["x3", "x10", "slow", "frozen D", "modes only"])
def test_onsets_under_noise(kind: str, every: int) -> None:
    """A share of the table in campaigns/: the last good evaluation but for one, or a softening's noise of 600 steps."""
    for seed in range(3):
        run = evaluations(kind, "lognormal", 0.15, every, seed)
        judgement = judge_collapse(run.steps, run.spread, run.fid)
        assert judgement.lasting is not None
        error = judgement.lasting.onset - run.well_until
        assert -max(every, 600 * (kind == "slow")) <= error <= max(every, 300 * (kind == "slow"))
        assert judgement.lasting.step - run.well_until <= 10 * every


@pytest.mark.parametrize("kind", ["healthy", "oscillating"])
def test_no_lasting_collapse_of_healthy_and_oscillating_runs(kind: str) -> None:
    for seed in range(10):
        run = evaluations(kind, "lognormal", 0.15, 100, seed)
        assert judge_collapse(run.steps, run.spread, run.fid).lasting is None


STUDIES = Path(__file__).parents[3] / "notebooks" / "data"


def test_recorded_runs() -> None:
    """Of 48 recorded branches those whose D was frozen collapse for good. In the small study the FID at the branching
    point, the onset, is 35, 32 and 29; at the evaluation behind it 587, 812 and 266. One branch with twice D's rate
    lost its quality for a while."""
    found, passing = {}, []
    studies = ("example-plan", "small-study")
    for events in sorted(path for study in studies for path in STUDIES.glob(f"{study}/*/*/events.jsonl")):
        judgement = judge_events(read_event_lines(events.parent))
        place = events.parent.relative_to(STUDIES).as_posix()
        if judgement.lasting is not None:
            assert judgement.findings == [judgement.lasting]
            found[place] = (judgement.lasting.onset, judgement.lasting.step)
        elif judgement.findings:
            passing.append((place, [finding.kind for finding in judgement.findings]))
    assert passing == [("small-study/seed-0/lr-D-x2", ["collapse", "recovered"])]
    assert found == {
        "example-plan/base-0/freeze-D": (160, 190),
        "example-plan/base-1/freeze-D": (140, 170),
        "small-study/seed-0/freeze-D": (1000, 1200),
        "small-study/seed-1/freeze-D": (1000, 1200),
        "small-study/seed-2/freeze-D": (1000, 1200),
    }


def test_the_collapse_of_a_run_is_the_lasting_one(tmp_path: Path) -> None:
    """And where nothing was evaluated, what an event says."""
    rows = [*[GOOD] * 10, *[BAD] * 5, *[GOOD] * 5, *[BAD] * 10]
    events = [
        {"event": "evaluation", "step": step, "weights": "raw", "scores": {"spread_share": spread, "fid": fid}}
        for step, (spread, fid) in enumerate(rows, 1)
    ]
    told = {"event": "collapse", "step": 9, "onset": 7}
    assert collapse_of([told, *events]).onset == 20
    assert collapse_of([told, *events[:20]]).onset == 10
    assert (collapse_of([told, *events[:4]]).onset, collapse_of([told]).step, collapse_of(events[:9])) == (7, 9, None)
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    rows = finding_rows(tmp_path)
    assert [(row["kind"], row["onset"]) for row in rows] == [("collapse", 10), ("recovered", 16), ("collapse", 20)]


def test_an_infinite_fid_is_worse_than_any_other_without_a_spread_too() -> None:
    steps = range(0, 4000, 100)
    for worst in (math.inf, 1e9):
        judged = judge_collapse(steps, [math.nan] * 40, [20.0] * 20 + [worst] * 20)
        assert [(f.kind, f.onset, f.step) for f in judged.findings] == [("collapse", 1900, 2100)]


def test_evaluations_without_a_spread_do_not_hide_a_generator_without_modes() -> None:
    spreads = [0.05 if number % 2 else math.nan for number in range(120)]
    assert collapse(range(120), spreads, [200.0] * 120) is not None


def test_a_recovery_begins_with_its_last_unbroken_stretch() -> None:
    fids = [20.0] * 12 + [200.0] * 6 + [20.0, 20.0, 100.0, 20.0, 20.0, 20.0]
    judged = judge_collapse(range(len(fids)), [0.8] * len(fids), fids)
    assert [f.kind for f in judged.findings] == ["collapse", "recovered"]
    assert judged.findings[1].onset == 21
