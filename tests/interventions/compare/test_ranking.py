"""The ranking of a rescue, against outcomes made by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from interventions.compare.outcome import RunOutcome
from interventions.compare.ranking import RankedBranch, Ranking, ranked
from interventions.study.expand import Job

ONSET, BEGIN, END = 2700, 2600, 4100


def outcome(
    best: float | None = 12.0, last: float | None = 13.0, *, collapse: int | None = None, judged: int | None = 3600,
    ended: str | None = "finished", **facts: Any,
) -> RunOutcome:  # fmt: skip
    numbers = {"best_fid_raw_median5": best, "final_fid_raw_median5": last, "last_spread_raw": 0.8}
    return RunOutcome(
        Path("x"), BEGIN, END, True, collapse=collapse, judged_until=judged, ended=ended, numbers=numbers, **facts
    )


def row(entry: str, found: RunOutcome | None, *, seed: int | None = None, failure: str | None = None) -> RankedBranch:
    kind = "branch" if seed is None else "seed"
    return ranked(Job("base", entry, kind, END - BEGIN, seed=seed), found, ONSET, failure)


def ranking(*rows: RankedBranch, healthy: float = 10.0) -> Ranking:
    run = RankedBranch("unchanged", None, False, ONSET, None, 14.0, 60.0, 0.5)
    return Ranking(sorted([run, *rows], key=lambda one: one.order), ONSET, BEGIN, END, healthy)


def test_survivors_come_first_by_their_last_fid_and_the_collapsed_by_how_late() -> None:
    found = ranking(
        row("dropout", outcome(9.0, 20.0)),
        row("G-rate-halved", outcome(11.0, 12.0)),
        row("R1", outcome(8.0, 8.5, collapse=3500, ended="stopped")),
        row("more-D-steps", outcome(7.0, 90.0, collapse=2800, ended="stopped")),
        row("control", outcome(9.0, 50.0, collapse=3000, ended="stopped"), seed=1),
    )
    names = [one.recipe for one in found.rows]
    assert names == ["G rate halved", "dropout", "R1", "unchanged, another seed", "more D steps", "unchanged"]
    assert found.winner is not None
    assert found.winner.key == "base/G-rate-halved"
    assert found.cost(found.winner.last_fid) == 1.2
    assert found.verdict() == "2 of 4 recipes survived; unchanged under another seed the run collapsed again."
    assert found.blind_after() == 3600


def test_an_unchanged_run_that_survives_as_well_is_said_and_may_win() -> None:
    found = ranking(row("R1", outcome(last=15.0)), row("control", outcome(last=14.0), seed=1))
    assert found.winner is not None
    assert found.winner.recipe == "unchanged, another seed"
    assert "does not show that a recipe was needed" in found.verdict()


def test_where_nothing_survived_it_says_so_and_names_no_winner() -> None:
    fell = outcome(collapse=2800, ended="stopped")
    found = ranking(row("R1", fell), row("control", fell, seed=1), row("control", fell, seed=2))
    assert found.winner is None
    assert found.verdict().startswith("0 of 1 recipes survived; unchanged under another seed the run collapsed again.")
    assert found.verdict().endswith("Nothing rescued the run from step 2600.")
    assert [one.recipe for one in found.other_seeds] == ["unchanged, another seed", "unchanged, another seed (2)"]
    assert found.blind_after() is None


def test_numbers_that_are_not_finite_never_win() -> None:
    """A collapse by its numbers is one; a FID that is lost while the spread is known comes behind every other."""
    broken = outcome(math.nan, math.nan, collapse=3000, collapse_rule="non_finite", ended="stopped")
    lost = row("dropout", outcome(math.nan, math.nan))
    assert row("R1", broken).survived is False
    found = ranking(row("R1", broken), lost, row("G-rate-halved", outcome(20.0, 40.0)))
    assert [one.recipe for one in found.rows][:2] == ["G rate halved", "dropout"]
    assert ranking(lost).winner is None
    endless = ranking(row("x", outcome(math.inf, math.inf)), row("y", outcome()))
    assert [one.recipe for one in endless.rows][:2] == ["y", "x"]


def test_a_collapse_before_the_branch_is_not_survival() -> None:
    assert row("R1", outcome(collapsed_before=True)).survived is False


def test_what_ended_too_soon_or_has_not_run_is_not_judged() -> None:
    short = row("R1", outcome(judged=2650))
    assert (short.survived, short.state) == (None, "finished")
    alarm = row("R1", outcome(ended="stopped", stopped_by="loss_jump"))
    assert (alarm.survived, alarm.state) == (None, "stopped")
    assert row("R1", outcome(ended=None)).state == "not finished"
    assert row("R1", None).state == "not begun"
    failed = row("R1", None, failure="no memory")
    assert (failed.state, failed.survived) == ("failed", None)
    found = ranking(failed, short, row("control", None, seed=1), row("dropout", outcome()))
    assert [one.recipe for one in found.rows] == ["dropout", "R1", "unchanged", "R1", "unchanged, another seed"]
    assert found.verdict() == (
        "1 of 3 recipes survived (3 branches are not judged); how the run fares unchanged under another seed is not "
        "known."
    )


def test_as_json_it_has_texts_for_what_json_has_not() -> None:
    found = json.loads(json.dumps(ranking(row("R1", outcome(math.nan, math.inf))).as_json(), allow_nan=False))
    assert (found["rows"][0]["best_fid"], found["rows"][0]["last_fid"]) == ("nan", "inf")
    assert found["winner"] is None
    assert found["rows"][1] | {"best_cost": 1.4} == found["rows"][1]


def test_a_run_that_was_never_scored_while_healthy_has_no_cost() -> None:
    found = ranking(row("R1", outcome()), healthy=math.nan)
    assert math.isnan(found.cost(12.0))
    assert found.winner is not None
