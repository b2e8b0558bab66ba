"""What is compared with what: seeds with seeds, base runs once each, and what is known where only one collapsed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from interventions.compare.collect import Comparison, Row, compare_plan, compare_runs, delay, later
from interventions.compare.figures.courses import draw_scores
from interventions.compare.figures.survival_curves import draw_scratch_survival, draw_survival
from interventions.compare.outcome import RunOutcome
from interventions.compare.report import write_report
from interventions.compare.statistics import effects, seed_variation, survival_tests
from interventions.compare.tables import sections

FID = "final_fid_raw_median5"


def row(
    base: str, entry: str, collapse: int | None = None, *, last: int = 1000, begin: int = 100, fid: float | None = None,
    kind: str = "branch", before: bool = False, copy: int = 1, ended: str | None = "finished", **numbers: float,
) -> Row:  # fmt: skip
    """A run whose collapse could have been seen to begin up to 50 steps before its end."""
    name, _, number = entry.partition("-seed-")
    outcome = RunOutcome(Path(base) / entry, begin, last, True, collapse, collapsed_before=before, ended=ended)
    outcome.judged_until = last - 50
    outcome.numbers |= numbers | ({} if fid is None else {FID: fid})
    return Row(base, name, kind, outcome, int(number) if number else None, copy)


def effect(comparison: Comparison, entry: str, measure: str) -> dict:
    return effects(comparison).set_index(["entry", "measure"]).loc[(entry, measure)].to_dict()


def test_preventing_collapse_is_a_delay_of_known_sign() -> None:
    """Prevented in three base runs, hastened in the fourth: no mean of the fourth alone."""
    rows = [row(base, "control", 500) for base in "abcd"]
    rows += [row(base, "r1") for base in "abc"] + [row("d", "r1", 400)]
    found = effect(Comparison(rows), "r1", "delay")
    assert (found["n"], found["positive"], found["negative"]) == (4, 3, 1)
    assert math.isnan(found["mean"])
    assert found["p_sign"] == pytest.approx(0.625)
    # Three of four pairs one way: of 16 arrangements 5 are as far to that side or farther.
    assert (found["p"], found["test"]) == (pytest.approx(10 / 16), "log-rank, exact")
    whole = effect(Comparison([*rows[:4], *(row(base, "r1", 600) for base in "abcd")]), "r1", "delay")
    assert (whole["n"], whole["mean"], whole["positive"]) == (4, 100, 4)


def test_a_sign_is_known_only_beyond_the_others_collapse() -> None:
    control = row("a", "control", 500)
    assert later(row("a", "r1", last=550), control) == 1
    assert math.isnan(later(row("a", "r1", last=549), control))  # an onset at 500 would not have been seen yet
    assert later(control, row("a", "r1")) == -1
    assert math.isnan(later(row("a", "r1"), row("a", "control")))
    assert [later(row("a", "r1", at), control) for at in (400, 500, 600)] == [-1, 0, 1]


def test_a_changed_seed_is_paired_with_that_seed() -> None:
    """Variation of 10 and 20 under seeds 1 and 2, an effect of 1 everywhere; n counts base runs."""
    rows = []
    for number, base in enumerate("ab"):
        for seed, offset in (("", 0), ("-seed-1", 10), ("-seed-2", 20)):
            kind = "seed" if seed else "control"
            rows.append(row(base, f"control{seed}", fid=number + offset, kind=kind))
            rows.append(row(base, f"freeze-D{seed}", fid=number + offset + 1))
    comparison = Comparison(rows)
    assert comparison.entries() == ["freeze-D"]
    found = effect(comparison, "freeze-D", FID)
    assert (found["n"], found["mean"], found["positive"]) == (2, 1, 2)
    assert [one.name for one in comparison.of("freeze-D")] == ["freeze-D"] * 2
    lone = Comparison([one for one in rows if one.name != "control-seed-2"])  # else with the parent's own noise
    assert effect(lone, "freeze-D", FID)["mean"] == pytest.approx((1 + 1 + 21) / 3)


def test_a_run_under_way_has_no_last_numbers_yet() -> None:
    """Its FID is that of a younger run: neither variation nor an effect; its collapse is known."""
    rows = [row("a", "control", fid=10, ended="finished"), row("a", "r1", 300, fid=90, ended=None)]
    rows += [row("a", f"control-seed-{n}", fid=fid, kind="seed", ended=end) for n, fid, end in
             ((1, 12, "finished"), (2, 50, "interrupted"))]  # fmt: skip
    comparison = Comparison(rows)
    assert effects(comparison)["measure"].tolist() == ["delay"]
    spread = seed_variation(comparison).set_index("measure").loc[FID]
    assert (spread["n"], spread["of_n"], spread["most"]) == (2, 3, 12)


def test_what_collapsed_before_the_branch_was_never_at_risk() -> None:
    rows = [row("a", "control", 90, before=True), row("a", "r1", 90, before=True)]
    rows += [row("b", "control", 500), row("b", "r1", 700), row("a", "control-seed-1", 90, before=True, kind="seed")]
    comparison = Comparison(rows)
    assert math.isnan(delay(rows[1], rows[0]))
    found = effect(comparison, "r1", "delay")
    assert (found["n"], found["mean"]) == (1, 200)
    tests = survival_tests(comparison).set_index("entry").loc["r1"]
    assert (tests["n"], tests["n_unchanged"], tests["collapsed_unchanged"]) == (1, 1, 1)
    assert "collapse" not in set(seed_variation(comparison)["measure"])
    assert "90 (before the branch)" in sections(comparison)[1][2]["collapse at"].tolist()


def write_run(
    path: Path, parent: Path, digest: str = "a", changes: list | None = None, settings: dict | None = None
) -> Path:
    path.mkdir(parents=True)
    scores = {"fid": 5.0, "spread_share": 0.8}
    evaluation = {"event": "evaluation", "step": 8, "time": 0, "weights": "raw", "scores": scores}
    events = [evaluation | {"settings": settings or {}}, {"event": "finished", "step": 8, "time": 0}]
    (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    lineage = {"path": str(parent), "digest": digest, "step": 4}
    (path / "run.json").write_text(json.dumps({"parent": lineage, "changes": changes or []}))
    return path


def change(name: str, **arguments: object) -> dict:
    return {"change": {name: arguments}, "from": 4, "until": None, "fields": {}}


@pytest.mark.usefixtures("quick_pictures")
def test_two_runs_of_one_parent_and_one_change_are_one_base_run(tmp_path: Path) -> None:
    parent = tmp_path / "gone" / "checkpoints" / "step-00000004.safetensors"
    r1 = [change("r1", value=1.0)]
    paths = [write_run(tmp_path / "control", parent), write_run(tmp_path / "same", parent)]
    paths += [write_run(tmp_path / name, parent, changes=r1) for name in ("r1", "longer")]
    found = compare_runs([*paths, paths[0]])  # a run that is given twice is one run
    assert [one.name for one in found.rows] == ["control", "control (2)", "r1 1", "r1 1 (2)"]
    assert found.entries() == ["r1 1", "r1 1 (2)"]
    assert set(effects(found)["n"]) == {1}
    assert survival_tests(found).empty  # one evaluation is too little to judge, and a note says so
    assert any("too few evaluations after the branching point" in note for note in found.notes)
    assert seed_variation(found).empty  # the very same noise twice is no variation
    assert any("is another run of gone at 4 with r1 1: it is called r1 1 (2)" in note for note in found.notes)
    write_report(found, tmp_path / "report")


@pytest.mark.usefixtures("quick_pictures")
def test_a_parent_in_a_frozen_ring_is_of_its_run(tmp_path: Path) -> None:
    """And two parents of one name stay two."""
    for folder in ("one", "two"):
        run = tmp_path / folder / "base"
        (run / "checkpoints/frozen-00000006").mkdir(parents=True)
        (run / "run.json").write_text("{}")
    paths = [
        write_run(tmp_path / f"control-{n}", tmp_path / f"{n}/base/checkpoints/frozen-00000006/step-00000004.x", n)
        for n in ("one", "two")
    ]
    found = compare_runs(paths)
    assert [one.base for one in found.rows] == ["base at 4", "base at 4 (2)"]
    assert not found.parents  # no record there: nothing to draw of it, and nothing to die of
    write_report(found, tmp_path / "report")


def test_a_seed_beside_a_change_is_told(tmp_path: Path) -> None:
    parent = tmp_path / "gone/checkpoints/step-00000004.safetensors"
    seed = change("seed", value=7)
    changes = {"control": [], "seed": [seed], "r1": [change("r1", value=1.0), seed]}
    found = compare_runs([write_run(tmp_path / name, parent, changes=one) for name, one in changes.items()])
    assert [(one.name, one.kind) for one in found.rows] == [
        ("control", "control"), ("control-seed-7", "seed"), ("r1 1-seed-7", "branch"),
    ]  # fmt: skip
    assert found.control_of(found.rows[2]).name == "control-seed-7"


def test_notes_on_settings_and_on_one_run_twice(tmp_path: Path) -> None:
    run = tmp_path / "base"
    write_run(run, tmp_path / "nowhere")
    parent = run / "checkpoints/step-00000004.safetensors"
    paths = [
        write_run(tmp_path / name, parent, name, settings={"samples": samples, "weights": "raw"})
        for name, samples in (("one", 100), ("two", 5000))
    ]
    notes = compare_runs(paths).notes
    assert any("different settings (samples 100 or 5000)" in note for note in notes)
    words = "base at 4 and base at 4 (2) are checkpoints of one run, and not independent: n counts them as 2"
    assert words in notes


def test_survival_draws_the_control_of_runs_from_scratch() -> None:
    rows = [row("a", "plain", 500, kind="scratch", begin=0), row("a", "r1-10", kind="scratch", begin=0)]
    assert draw_survival(Comparison(rows)) is None
    figure = draw_scratch_survival(Comparison(rows))
    (axes,) = [axes for axes in figure.axes if axes.lines]
    assert axes.get_title() == "r1-10\n0 of 1 collapsed"
    assert {line.get_label() for line in axes.lines} == {"unchanged", "the entry", "censored (the entry)"}
    assert len({line.get_linestyle() + str(line.get_color()) for line in axes.lines}) == 3
    assert "steps after the beginning" in figure.get_supxlabel()
    both = draw_survival(Comparison([*rows, row("a", "control")]))
    assert "steps after the branching point" in both.get_supxlabel()


def test_every_entry_has_a_panel_with_its_control(tmp_path: Path) -> None:
    """The last base run may have begun with its control alone."""
    parent = tmp_path / "gone/checkpoints/step-00000004.safetensors"
    paths = [
        write_run(tmp_path / "a", parent, "a"),
        write_run(tmp_path / "a-r1", parent, "a", changes=[change("r1", value=1.0)]),
        write_run(tmp_path / "b", parent, "b"),
        write_run(tmp_path / "b-7", parent, "b", changes=[change("seed", value=7)]),
    ]
    figure = draw_scores(compare_runs(paths))
    (axes,) = [axes for axes in figure.axes if axes.lines]
    assert axes.get_title() == "r1 1"
    assert [line.get_label() for line in axes.lines] == ["unchanged", "the entry's runs"]
    alone = draw_scores(compare_runs(paths[2:]))  # without any change, the unchanged runs have a panel
    assert [axes.get_title() for axes in alone.axes if axes.lines] == ["control"]


def test_a_job_that_ended_after_a_crash_has_not_failed(tmp_path: Path) -> None:
    """Its launcher was stopping, and never wrote that it finished."""
    base = {"name": "a", "checkpoint": "/nowhere/x", "digest": "a", "step": 4, "run": None}
    jobs = [
        {"base": "a", "entry": name, "kind": kind, "steps": 4, "changes": []}
        for name, kind in (("control", "control"), ("r1", "branch"))
    ]
    plan = {"format": "interventions-plan-1", "plan": "p", "title": "p", "bases": [base], "jobs": jobs}
    plan |= {"settings": {}, "figures": [], "notes": []}
    write_run(tmp_path / "a/control", tmp_path / "x")
    jobs += [{**jobs[0], "entry": name, "kind": "luck"} for name in ("control-seed-1", "control-seed-2")]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    crashes = [{"event": "crashed", "key": f"a/{name}", "words": "no memory", "code": 1} for name in ("control", "r1")]
    (tmp_path / "launches.jsonl").write_text("".join(json.dumps(one) + "\n" for one in crashes))
    notes = compare_plan(tmp_path).notes
    assert not any(note.startswith("a/control failed") for note in notes)
    assert "a/r1 failed: no memory" in notes
    assert "a: not begun yet: r1, control-seed-1, control-seed-2" in notes  # one line a base run
