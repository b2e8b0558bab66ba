"""What a run's events and record come to, where its numbers end, change their settings, or were bad before it began."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from biggan.observers.collapse_of_run import collapse_of
from interventions.compare.collect import compare_runs
from interventions.compare.outcome import RunOutcome, read_outcome

BEGIN = 100


def write_run(
    path: Path, fids: list[Any], *, spreads: list[Any] | None = None, every: int = 10, ended: str = "finished",
    settings: list[dict] | None = None, changes: list | None = None, begin: int = BEGIN, last: int | None = None,
    why: dict | None = None,
) -> Path:  # fmt: skip
    """A branch of step `begin` with a score every ten steps from step 10 on and no record."""
    path.mkdir(parents=True)
    events: list[dict[str, Any]] = [{"event": "started", "step": begin, "time": 0}]
    for number, fid in enumerate(fids):
        scores = {"fid": fid, "spread_share": 0.8 if spreads is None else spreads[number]}
        event = {"event": "evaluation", "step": every * (number + 1), "time": 0, "weights": "raw", "scores": scores}
        events.append(event | ({"settings": settings[number]} if settings else {}))
    events.append({"event": ended, "step": last or every * len(fids), "time": 0} | (why or {}))
    (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    lineage = {"path": "/nowhere/a/checkpoints/step-00000100.safetensors", "digest": "a", "step": begin}
    (path / "run.json").write_text(json.dumps({"parent": lineage, "changes": changes or []}))
    return path


def outcome(path: Path, fids: list[Any], **options: Any) -> RunOutcome:
    begin = options.setdefault("begin", 0)
    return read_outcome(write_run(path / "run", fids, **options), begin)


def test_numbers_that_end_non_finite_are_a_collapse(tmp_path: Path) -> None:
    """Neither a survivor nor a good final FID."""
    fids, spreads = [6, 5, "nan", 5, "nan", "inf"], [0.8, 0.8, "nan", 0.8, "nan", "nan"]
    found = outcome(tmp_path, fids, spreads=spreads)
    assert (found.collapse, found.collapse_rule, found.survived) == (40, "non_finite", 40), "the last that was well"
    assert found.numbers["final_fid_raw_median5"] == found.numbers["best_fid_raw_median5"] == math.inf


def test_a_final_fid_that_is_not_a_number_is_said(tmp_path: Path) -> None:
    found = outcome(tmp_path, [6, 5, 5.5, "nan"])  # its spread is known still: no collapse
    assert math.isnan(found.numbers["final_fid_raw_median5"])
    assert math.isnan(found.numbers["best_fid_raw_median5"])
    assert found.collapse is None


def test_a_run_stopped_for_non_finite_numbers_has_not_survived(tmp_path: Path) -> None:
    found = outcome(tmp_path, [6, 5, 5.5], ended="stopped")
    assert (found.collapse, found.collapse_rule) == (30, "non_finite")
    unscored = outcome(tmp_path / "unscored", [], ended="stopped", last=7)
    assert (unscored.collapse, unscored.collapse_rule, unscored.at_risk) == (7, "non_finite", True)


def test_a_run_stopped_by_an_alarm_is_not_broken_off(tmp_path: Path) -> None:
    """A collapse has its own onset, and the scores up to it stand; another alarm is no collapse."""
    why = {"reason": "alarm", "cause": "collapse", "onset": 160}
    found = outcome(tmp_path / "collapse", [9.0] * 16 + [90.0] * 4, ended="stopped", why=why)
    assert (found.collapse, found.collapse_rule, found.stopped_by) == (160, "quality_lost", "collapse")
    assert found.numbers["best_fid_raw_median5"] == 9
    assert found.done
    jump = {"reason": "alarm", "cause": "loss_jump", "onset": 290}
    found = outcome(tmp_path / "jump", [9.0] * 30, ended="stopped", why=jump)
    assert (found.collapse, found.stopped_by, found.at_risk) == (None, "loss_jump", True)
    assert found.survived < 300
    assert found.numbers["final_fid_raw_median5"] == 9
    broken = outcome(tmp_path / "broken", [6, 5, 5.5], ended="stopped", why={"reason": "non_finite"})
    assert (broken.collapse_rule, broken.stopped_by) == ("non_finite", "non_finite")
    notes = compare_runs([tmp_path / name / "run" for name in ("collapse", "jump", "broken")]).notes
    assert sum("an alarm stopped some runs (" in note and "and 1 more" in note for note in notes) == 1


def test_the_median_is_of_as_many_as_there_are(tmp_path: Path) -> None:
    """Never of the first evaluation alone; one that is not finite counts as worse than any other."""
    found = outcome(tmp_path, [5, 20, 20, 20, 20, 20])
    assert found.numbers["best_fid_raw_median5"] == 20
    few = outcome(tmp_path / "few", [1, 9, 8])
    assert few.numbers["best_fid_raw_median5"] == few.numbers["final_fid_raw_median5"] == 8
    assert few.numbers["last_fid_raw"] == 8
    gap = outcome(tmp_path / "gap", [6, 6, "nan", "inf", "nan", 6, 6])
    assert (gap.numbers["best_fid_raw_median5"], gap.numbers["final_fid_raw_median5"]) == (math.inf, math.inf)
    assert gap.numbers["last_fid_raw"] == 6
    one = outcome(tmp_path / "one", [9, "nan", 7, 8, 6, 5])
    assert one.numbers["final_fid_raw_median5"] == 7  # of inf, 7, 8, 6 and 5
    assert one.numbers["last_is_raw"] is None  # never computed


SMALL, LARGE = {"samples": 100, "weights": "raw"}, {"samples": 5000, "weights": "raw"}


def test_scores_under_other_settings_are_left_out(tmp_path: Path) -> None:
    """The parent's FIDs under fewer samples are other numbers: no collapse, no median across, online as offline."""
    fids = [5.0] * 10 + [60.0] * 10
    path = write_run(tmp_path / "mixed", fids, settings=[SMALL] * 10 + [LARGE] * 10)
    found = read_outcome(path, 50)
    assert found.collapse is None
    assert found.numbers["best_fid_raw_median5"] == 60
    assert (found.mixed, found.settings) == (10, {"samples": 5000})
    events = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    assert collapse_of(events) is None
    for event in events:
        event.pop("settings", None)
    assert collapse_of(events) is not None  # a thinned run's settings count as equal


def test_a_collapse_before_the_branch_is_no_death_at_zero(tmp_path: Path) -> None:
    fids = [5.0] * 8 + [90.0] * 12
    before = outcome(tmp_path / "before", fids, begin=180)
    assert before.collapsed_before
    assert not before.at_risk
    # Begun before, and seen after the branching point: it stays.
    across = outcome(tmp_path / "across", fids, begin=90)
    assert across.collapse == 80
    assert not across.collapsed_before
    assert across.at_risk


def test_a_run_that_falls_at_its_end_is_not_a_survivor(tmp_path: Path) -> None:
    """From 37 to 156 in its last evaluations: too late to be said, and censored before."""
    fids = [37.0] * 16 + [80.0, 110.0, 130.0, 156.0]
    whole = outcome(tmp_path, [*fids, 170.0, 180.0, 190.0, 200.0])
    assert whole.collapse == 160
    for cut in range(17, 24):
        found = outcome(tmp_path / str(cut), [*fids, 170.0, 180.0, 190.0, 200.0][:cut])
        assert found.collapse == 160 or found.judged_until < 160, cut
        assert found.survived <= 160


def test_a_branch_of_few_evaluations_is_too_short_to_judge(tmp_path: Path) -> None:
    found = outcome(tmp_path, [9.0] * 12, begin=100)
    assert (found.at_risk, found.too_short) == (False, True)
    longer = outcome(tmp_path / "longer", [9.0] * 30, begin=100)
    assert longer.at_risk
    assert 100 < longer.judged_until < 300
    assert longer.survived == longer.judged_until - 100


def test_a_dip_that_recovers_is_no_death(tmp_path: Path) -> None:
    dip = outcome(tmp_path, [9.0] * 15 + [90.0] * 5 + [9.0] * 20)
    assert (dip.collapse, dip.at_risk) == (None, True)
    assert dip.survived > 250
    for_good = outcome(tmp_path / "good", [9.0] * 15 + [90.0] * 25 + [9.0] * 20)
    assert for_good.collapse == 150


def test_what_was_collapsed_at_the_branch_was_never_at_risk_whatever_came_of_it(tmp_path: Path) -> None:
    """A change that saves a collapsed parent and a control that stays collapsed are both left out."""
    parent = [9.0] * 15 + [90.0] * 6
    saved, lost = (outcome(tmp_path / name, parent + tail, begin=210) for name, tail in
                   (("saved", [9.0] * 20), ("lost", [90.0] * 20)))  # fmt: skip
    assert saved.collapsed_before
    assert lost.collapsed_before
    # One that the parent had recovered from is past: the branch may collapse once more.
    healed = [9.0] * 15 + [90.0] * 20 + [9.0] * 15
    again = outcome(tmp_path / "again", healed + [90.0] * 20, begin=500)
    assert (again.collapsed_before, again.collapse) == (False, 500)
    assert outcome(tmp_path / "well", healed + [9.0] * 20, begin=500).collapse is None


def test_scores_that_were_not_computed_are_no_collapse(tmp_path: Path) -> None:
    """FID every other time: what is not there is not NaN."""
    path = write_run(tmp_path / "run", [9.0] * 40)
    events = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    for event in events[2:41:2]:
        event["scores"] = {"class_accuracy": 0.5, "fid": None}
    (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    found = read_outcome(path, 0)
    assert found.collapse is None
    assert found.numbers["final_fid_raw_median5"] == 9
    assert found.numbers["last_spread_raw"] == 0.8


def test_a_run_that_broke_before_its_first_evaluation_has_no_number(tmp_path: Path) -> None:
    """Recorded as broken, and not as missing: it counts as worse than all others."""
    found = outcome(tmp_path, [], ended="stopped", last=7)
    assert math.isnan(found.numbers["final_fid_raw_median5"])
    assert math.isnan(found.numbers["last_spread_raw"])


def test_evaluations_that_tell_nothing_do_not_make_a_collapse_last(tmp_path: Path) -> None:
    """As `biggan.judge_collapse` counts: a fall that is over after a few evaluations, and many of NaN."""
    fids = [20.0] * 12 + [200.0] * 3 + ["nan"] * 20 + [20.0] * 20
    spreads = [0.8] * 15 + ["nan"] * 20 + [0.8] * 20
    assert outcome(tmp_path, fids, spreads=spreads).collapse is None
