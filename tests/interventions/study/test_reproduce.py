"""A study that trains its own base runs: the order of its queue, its growth, adoption, kills, and adding to it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import assert_same_state

from biggan.cli.train import train_main
from biggan.config import presets
from biggan.errors import UserError
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from biggan.run.files import Lock
from interventions.cli.main import main
from interventions.compare.collect import compare_plan, compare_plans
from interventions.study import launch
from interventions.study.branching import branching_places, open_added, place_before, share_or_steps, study_config
from interventions.study.cost import Rates
from interventions.study.expand import load_resolved
from interventions.study.growth import study_facts
from interventions.study.launch import local
from interventions.study.priority import choose, study_entries
from interventions.study.reproduce import Layouts, Study, StudyLaunch, default_branch_steps, run_study
from interventions.study.thin import thin_plan, update_thinned
from interventions.study.worker import run_job

PRESET = """
steps: 12
device: cpu
model: {resolution: 8, ch_G: 4, ch_D: 4}
data: {train_per_class: 10}
train: {batch: 8}
checkpoint: {every: 100, ring_every: 2, ring_keep: 6}
samples: {every: 0}
tensorboard: {every: 0}
spectra: {every: 4}
"""
PLAN = """
entries:
  r1-1: {from: scratch, changes: [r1: 1]}
  freeze-D: {changes: [{freeze: D, from: 0.5}]}
  freeze-G: {changes: [freeze: G]}
"""


class InThisProcess:
    """A job that is run at once."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def __call__(self, folder: Path, key: str) -> InThisProcess:
        self.begun.append(key)
        run_job(folder, key)
        return self

    def poll(self) -> int:
        return 0

    def stop(self) -> None:
        pass


class Replaying(InThisProcess):
    """Instead of running a job it copies the same run of a finished study, where that has one."""

    def __init__(self, finished: Path) -> None:
        super().__init__()
        self.finished = finished

    def __call__(self, folder: Path, key: str) -> InThisProcess:
        if not (self.finished / key).exists():
            return super().__call__(folder, key)
        self.begun.append(key)
        shutil.copytree(self.finished / key, folder / key, dirs_exist_ok=True)
        return self


@pytest.fixture(autouse=True, scope="module")
def _no_waiting() -> Iterator[None]:
    """Jobs that run at once are not waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interventions.study.launch.POLL_SECONDS", 0.01)
        yield


@pytest.fixture(autouse=True)
def no_books(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page after each entry: it is made in a process of its own."""
    torch.set_num_threads(1)
    monkeypatch.setattr("interventions.study.books.Books.update", lambda self: None)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("preset") / "small.yaml"
    path.write_text(PRESET)
    path.with_name("few.yaml").write_text(PLAN)
    return path


def make_study(preset: Path, folder: Path, names: tuple[str, ...] = ("r1-1", "freeze-D"), **given: object) -> Study:
    config = study_config(str(preset))
    entries = choose(study_entries([str(preset.with_name("few.yaml"))], []), ["few"], [])
    chosen = tuple(one for one in entries if one.name in names)
    study = Study(folder, "small", config, (1, 2), chosen, branch_steps=4, before=0.1, seeds=1)
    return dataclasses.replace(study, **given)  # type: ignore[arg-type]


def run(study: Study, finished: Path | None = None, **given: object) -> tuple[StudyLaunch, list[str]]:
    start = InThisProcess() if finished is None else Replaying(finished)
    return run_study(Layouts(study), start, 1, quiet=True, **given), start.begun  # type: ignore[arg-type]


def last_states(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    runs = sorted(path.parent for path in folder.glob("seed-*/*/config.yaml"))
    return {str(run.relative_to(folder)): read_checkpoint(checkpoint_paths(run)[-1]).tensors for run in runs}


@pytest.fixture(scope="module")
def whole(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of two base runs; nobody writes into it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interventions.study.books.Books.update", lambda self: None)
        launched, begun = run(make_study(preset, folder))
    assert not launched.outcome.failed
    assert begun == [
        "seed-1/plain", "seed-2/plain", "seed-1/control", "seed-2/control", "seed-1/control-seed-1",
        "seed-2/control-seed-1", "seed-1/r1-1", "seed-2/r1-1", "seed-1/freeze-D", "seed-2/freeze-D",
    ]  # fmt: skip
    return folder


def test_base_runs_that_do_not_collapse_are_branched_at_a_share_of_their_length(whole: Path) -> None:
    resolved = load_resolved(whole)
    assert [base.step for base in resolved.bases] == [6, 6]  # 60 % of 12, and the newest checkpoint before
    assert any("seed-1 did not collapse" in note for note in resolved.notes)
    change = resolved.job("seed-2/freeze-D").changes[0]
    assert (change["from"], change["until"]) == (8, None)
    facts = json.loads((whole / "seed-2/freeze-D/run.json").read_text())
    assert facts["parent"]["step"] == 6
    one, other = (read_checkpoint(whole / f"seed-1/{name}/checkpoints/step-00000010.safetensors").tensors
                  for name in ("plain", "control"))  # fmt: skip
    assert_same_state(one, other)
    assert not (whole / "seed-1/r1-1/checkpoints/step-00000008.safetensors").exists()  # only base runs keep a ring


def test_a_finished_study_goes_on_with_more_bases_and_entries(preset: Path, whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "study")
    assert run(make_study(preset, whole))[1] == []
    study = make_study(preset, folder, ("freeze-G",), base_seeds=(2, 3), seeds=0)
    _, begun = run(study)
    assert begun == ["seed-3/plain", "seed-3/control", "seed-2/freeze-G", "seed-3/freeze-G"]
    resolved = load_resolved(folder)
    assert [base.name for base in resolved.bases] == ["seed-1", "seed-2", "seed-3"]
    assert {job.name for job in resolved.jobs} >= {"r1-1", "freeze-G", "control-seed-1"}
    with pytest.raises(UserError, match="--branch-steps: 4 -> 6"):
        run(make_study(preset, folder, branch_steps=6))


def test_trained_base_runs_are_adopted_if_they_are_of_the_preset(
    preset: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presets, "FOLDERS", [*presets.FOLDERS, preset.parent])
    assert train_main(["small", "--seed=1", "--out", str(tmp_path / "seed-1/plain"), "--quiet"]) == 0
    shutil.copytree(whole / "seed-2/plain", tmp_path / "seed-2/plain")
    study = make_study(preset, tmp_path, (), seeds=0)
    assert run(study, whole)[1] == ["seed-1/control", "seed-2/control"]
    (tmp_path / "plan.json").unlink()
    other = dataclasses.replace(study.config, loss=dataclasses.replace(study.config.loss, margin=2.0))
    with pytest.raises(UserError, match=r"seed-1/plain is not a run of this preset and seed.*loss.margin: 2.0 -> 1.0"):
        run(dataclasses.replace(study, config=other))
    (tmp_path / "seed-1/plain").rename(tmp_path / "seed-3")
    (tmp_path / "seed-2/plain").rename(tmp_path / "seed-1/plain")
    with pytest.raises(UserError, match=r"seed: 1 -> 2"):
        run(study)


def test_a_base_run_that_another_process_trains_is_waited_for(
    preset: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interventions.study.reproduce.LOCK_POLL_SECONDS", 0.0)
    folder = tmp_path / "study"
    for seed in (1, 2):
        shutil.copytree(whole / f"seed-{seed}/plain", folder / f"seed-{seed}/plain")
    events = folder / "seed-1/plain/events.jsonl"
    finished = events.read_text()
    events.write_text("".join(line for line in finished.splitlines(keepends=True) if '"finished"' not in line))
    lock = Lock(folder / "seed-1/plain/.lock")

    class Ending(Replaying):
        def __call__(self, folder: Path, key: str) -> InThisProcess:
            if key == "seed-2/r1-1":
                lock.close()
                events.write_text(finished)
            return super().__call__(folder, key)

    start = Ending(whole)
    study = make_study(preset, folder, ("r1-1",), seeds=0)
    run_study(Layouts(study), start, 1, quiet=True)
    # Runs from scratch need no base run; seed-2 did not collapse, and its place depends on where the others did.
    assert start.begun == ["seed-1/r1-1", "seed-2/r1-1", "seed-1/plain", "seed-1/control", "seed-2/control"]


def test_a_checkpoint_that_was_not_kept_is_trained_up_to_again(preset: Path, whole: Path, tmp_path: Path) -> None:
    study = make_study(preset, tmp_path / "study", ("freeze-D",), base_seeds=(1,), seeds=0)
    checkpoint = dataclasses.replace(study.config.checkpoint, ring_every=0, keep=1, best=False)
    study = dataclasses.replace(study, config=dataclasses.replace(study.config, checkpoint=checkpoint))
    _, begun = run(study)
    assert begun == ["seed-1/plain", "seed-1/branching-point", "seed-1/control", "seed-1/freeze-D"]
    base = load_resolved(study.folder).bases[0]
    assert base.step == 7
    assert "branching-point" in base.checkpoint
    assert [row.name for row in compare_plan(study.folder).rows] == ["plain", "control", "freeze-D"]
    assert run(study)[1] == []


def test_nothing_is_begun_that_would_not_end_in_the_budget(preset: Path, whole: Path, tmp_path: Path) -> None:
    rates = Rates(10.0, "given", factors={"r1-1": 0.1})
    launched, begun = run(make_study(preset, tmp_path / "study"), whole, rates=rates, budget=60.0)
    assert begun == ["seed-1/r1-1", "seed-2/r1-1"]  # 12 s each; a base run takes 120
    assert [job.key for job in launched.left] == ["seed-1/plain", "seed-2/plain"]


def test_where_base_runs_are_branched(monkeypatch: pytest.MonkeyPatch) -> None:
    onsets = {"a": 3000, "b": 2000, "c": None}
    monkeypatch.setattr("interventions.branch.parent.collapse_onset", lambda run: onsets[run.name])
    runs = {name: Path(name) for name in onsets}
    places, notes = branching_places(runs, 0.1, 5000, [], all_ended=False)
    assert places == {"a": 2700, "b": 1800}
    assert not notes
    places, notes = branching_places(runs, 0.1, 5000, [], all_ended=True)
    assert places["c"] == 2250
    assert notes == ["c did not collapse: it is branched at the median place of those that did (step 2250)"]
    places, notes = branching_places({"c": Path("c")}, 0.1, 5000, [], all_ended=True)
    assert places == {"c": 3000}
    assert place_before(3000, 400.0) == 2600
    assert share_or_steps("10%") == 0.1
    for wrong in ("ten", "100%", "-1", "2.5"):
        with pytest.raises(UserError, match="--before"):
            share_or_steps(wrong)


def test_a_branch_is_a_quarter_of_the_run_in_whole_evaluations() -> None:
    assert default_branch_steps(study_config("digits-collapse")) == 1300
    assert default_branch_steps(study_config("digits")) == 500


def test_the_thinned_copy_grows_and_holds_no_paths(preset: Path, whole: Path, tmp_path: Path) -> None:
    out = update_thinned(whole, tmp_path / "thin")
    held = {path: path.stat().st_mtime_ns for path in out.rglob("records/*")}
    assert len(held) == 10
    for path in [path for path in out.rglob("*") if path.is_file()]:
        contents = path.read_bytes()
        for private in (str(whole.parent), str(whole.resolve().parent), str(Path.home())):
            assert private.encode() not in contents, path
        if path.suffix != ".arrow":  # whose bytes may spell a short name
            assert f'"{socket.gethostname()}"'.encode() not in contents, path
    update_thinned(whole, out)
    assert held == {path: path.stat().st_mtime_ns for path in out.rglob("records/*")}
    one, other = compare_plan(whole), compare_plan(out)
    assert [(row.base, row.name) for row in one.rows] == [(row.base, row.name) for row in other.rows]
    assert other.parents["seed-1"] == out / "seed-1/plain"
    for mine, thin in zip(one.rows, other.rows, strict=True):
        assert mine.outcome.numbers["D_loss_peak_mean10"] == thin.outcome.numbers["D_loss_peak_mean10"]
    with pytest.raises(UserError, match="not empty"):
        thin_plan(whole, out)


@pytest.mark.slow
def test_a_recorded_study_is_added_to(preset: Path, whole: Path, tmp_path: Path) -> None:
    recorded = update_thinned(whole, tmp_path / "recorded")
    study = make_study(preset, tmp_path / "more", ("r1-1", "freeze-G"), base_seeds=(2, 3))
    facts = study_facts(study.preset, study.config, study.branch_steps, study.before)
    study = dataclasses.replace(study, added=open_added(recorded, facts))
    _, begun = run(study)
    assert begun == [
        "seed-3/plain", "seed-2/branching-point", "seed-3/control", "seed-3/control-seed-1", "seed-3/r1-1",
        "seed-2/freeze-G", "seed-3/freeze-G",
    ]  # fmt: skip
    both = compare_plans([recorded, study.folder])
    assert [row.base for row in both.rows if row.entry == "plain"] == ["seed-1", "seed-2", "seed-3"]
    assert sorted(row.base for row in both.rows if row.entry == "freeze-G") == ["seed-2", "seed-3"]
    assert "freeze-G" in both.planned
    assert "freeze-D" in both.planned
    with pytest.raises(UserError, match="is both in"):
        compare_plans([recorded, whole])


def test_another_base_run_of_the_same_name_is_refused(preset: Path, whole: Path, tmp_path: Path) -> None:
    recorded = update_thinned(whole, tmp_path / "recorded")
    values = json.loads((recorded / "plan.json").read_text())
    values["bases"][0]["state"] = "other"
    (recorded / "plan.json").write_text(json.dumps(values))
    study = make_study(preset, tmp_path / "more", ("freeze-G",), base_seeds=(1,))
    facts = study_facts(study.preset, study.config, study.branch_steps, study.before)
    study = dataclasses.replace(study, added=open_added(recorded, facts))
    launched, begun = run(study)
    assert begun == ["seed-1/branching-point"]
    assert any("it is not the run that is recorded" in note for note in launched.resolved.notes)
    with pytest.raises(UserError, match="another base run"):
        compare_plans([recorded, whole])
    with pytest.raises(UserError, match=r"--before: 0\.1 -> 0\.2"):
        open_added(recorded, {**facts, "before": 0.2})


def test_each_job_sees_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker"
    worker.write_text('#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES" > "$3/$4"\n[ "$4" = short ] || sleep 60\n')
    worker.chmod(0o755)
    monkeypatch.setattr(launch.sys, "executable", str(worker))
    start = local(1, ["3", "5"])
    one, other = start(tmp_path, "one"), start(tmp_path, "short")
    while other.poll() is None:
        time.sleep(0.02)
    third = start(tmp_path, "third")
    seen = {}
    while len(seen) < 3:
        seen = {name: text for name in ("one", "short", "third")
                if (tmp_path / name).exists() and (text := (tmp_path / name).read_text().strip())}  # fmt: skip
    for process in (one, third):
        process.stop()
    assert seen == {"one": "3", "short": "5", "third": "5"}


def test_the_command_prints_first_what_it_would_run(
    preset: Path, tmp_path: Path, capsys: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interventions.study.cost._MEASURED_STEPS", 5)
    monkeypatch.setattr("interventions.study.cost._WARM_UP", 2)
    few = str(preset.with_name("few.yaml"))
    command = ["reproduce", str(preset), "--bases", "2", "--out", str(tmp_path / "study"), "--only", few, "--dry-run"]
    assert main(command) == 0
    said = capsys.readouterr().out  # type: ignore[attr-defined]
    assert "2 base runs (seeds 1 to 2)" in said
    assert "few                        6     0       6" in said
    assert "5 steps, measured now" in said
    assert not (tmp_path / "study").exists()
    for wrong, words in (("--budget=3x", "such as 3h"), ("--bases=0", "--bases is 0"), ("--only=G.7", "Places: ")):
        assert main([*command[:-3], "--dry-run", wrong]) == 2
        assert words in capsys.readouterr().err  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_killed_study_goes_on_to_the_same_end(preset: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    plan = tmp_path / "few.yaml"
    plan.write_text("\n".join(line for line in PLAN.splitlines() if "freeze-G" not in line))
    options = [str(preset), "--bases=2", f"--out={folder}", f"--only={plan}", "--branch-steps=4", "--seeds=1"]
    command = [sys.executable, "-m", "interventions.cli.main", "reproduce", *options, "--jobs=2", "--quiet"]
    for wait_for in ("seed-1/plain/config.yaml", "seed-2/control/config.yaml", "seed-1/freeze-D/config.yaml"):
        process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        while not (folder / wait_for).exists() and process.poll() is None:
            time.sleep(0.02)
        workers = [json.loads(path.read_text())["pid"] for path in folder.glob("progress/*.json")]
        process.kill()
        process.wait()
        for worker in workers:
            if f"study.worker\0{folder}".encode() in _command_of(worker):
                os.kill(worker, signal.SIGKILL)
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    one, other = last_states(folder), last_states(whole)
    assert set(one) == set(other)
    for key, state in one.items():
        assert_same_state(state, other[key])


def _command_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
