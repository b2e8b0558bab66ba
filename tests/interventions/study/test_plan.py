"""Plans: what they lay out, how they are launched, crash, are killed and continued, each to the same table."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import TINY, assert_same_state

from biggan.cli.options import parse
from biggan.cli.train import train_main
from biggan.config import to_dict
from biggan.errors import UserError
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint, save_checkpoint
from biggan.run.directory import RunDirectory
from biggan.training.state import TrainingState
from interventions.changes import with_fields
from interventions.cli.main import main
from interventions.compare.collect import Comparison, compare_plan
from interventions.compare.runs_table import table
from interventions.study.expand import Resolved, load_json, load_resolved, resolve, save_resolved
from interventions.study.launch import launch
from interventions.study.plan import read_plan, shipped_plans
from interventions.study.thin import thin_plan
from interventions.study.worker import run_job

PLAN = """
title: a tiny plan
seeds: 1
entries:
  freeze-D: {changes: [freeze: D]}
  r1-{r}: {from: scratch, each: {r: [1]}, changes: [r1: "{r}"]}
"""


@pytest.fixture(autouse=True, scope="module")
def _no_waiting() -> Iterator[None]:
    """Jobs that run at once are not waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interventions.study.launch.POLL_SECONDS", 0.01)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with checkpoints of 2 and 4; nobody writes into it."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("plan") / "base"
    options = ["--checkpoint.every=2", "--spectra.every=1", *TINY]
    assert train_main(["--out", str(run), "--steps=4", "--quiet", *options]) == 0
    return run


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(PLAN)
    return path


class InThisProcess:
    """A job that is run at once; `crash` names keys that fail so often before they run."""

    def __init__(self, crash: dict[str, int] | None = None) -> None:
        self.crash, self.begun = dict(crash or {}), []

    def __call__(self, folder: Path, key: str) -> InThisProcess.Done:
        self.begun.append(key)
        if self.crash.get(key, 0) > 0:
            self.crash[key] -= 1
            return self.Done(1)
        return self.Done({"finished": 0, "interrupted": 130, "stopped": 0}[run_job(folder, key)])

    class Done:
        def __init__(self, code: int) -> None:
            self.code = code

        def poll(self) -> int:
            return self.code

        def stop(self) -> None:
            pass


def lay_out(plan: Path, base: Path, folder: Path) -> Resolved:
    resolved = resolve(read_plan(str(plan)), [str(base)], at=2, steps=2)
    save_resolved(resolved, folder)
    return resolved


def rows_of(comparison: Comparison) -> list[list[str]]:
    """The table of a plan, without what depends on the clock."""
    return table(comparison).astype(str).to_numpy().tolist()


def numbers(folder: Path) -> list[list[str]]:
    return rows_of(compare_plan(folder))


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plan, run without a hitch."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole") / "plan"
    plan = folder.parent / "tiny.yaml"
    plan.write_text(PLAN)
    outcome = launch(lay_out(plan, base, folder), folder, InThisProcess(), 1, quiet=True)
    assert not outcome.failed
    return folder


@pytest.fixture(scope="module")
def table_of_whole(whole: Path) -> list[list[str]]:
    return numbers(whole)


def test_every_plan_holds_the_control_and_other_continuations(base: Path, whole: Path) -> None:
    resolved = load_resolved(whole)
    kinds = [(job.name, job.kind, job.steps) for job in resolved.jobs]
    assert kinds == [
        ("control", "control", 2), ("control-seed-1", "seed", 2), ("plain", "scratch", 4),
        ("plain-seed-1", "scratch", 4), ("freeze-D", "branch", 2), ("r1-1", "scratch", 4),
    ]  # fmt: skip
    one, other = (checkpoint_paths(run)[-1] for run in (base, whole / "base/control"))
    assert_same_state(read_checkpoint(one).tensors, read_checkpoint(other).tensors)
    plain = checkpoint_paths(whole / "base/plain")[-1]  # the same seed and data from scratch is the base run again
    assert_same_state(read_checkpoint(one).tensors, read_checkpoint(plain).tensors)
    facts = json.loads((whole / "base/r1-1/run.json").read_text())
    assert facts["changes"][0]["change"] == {"r1": {"value": 1.0}}


def test_a_finished_plan_is_not_run_again(whole: Path) -> None:
    start = InThisProcess()
    outcome = launch(load_resolved(whole), whole, start, 2, quiet=True)
    assert start.begun == []
    assert len(outcome.finished) == 6


def test_a_crashed_entry_is_begun_once_more_and_the_others_go_on(
    plan_file: Path, base: Path, whole: Path, table_of_whole: list[list[str]], tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "plan")
    for key in ("control", "freeze-D", "r1-1"):
        shutil.rmtree(folder / "base" / key)
    (folder / "launches.jsonl").unlink()
    resolved = lay_out(plan_file, base, folder)
    start = InThisProcess({"base/freeze-D": 2, "base/control": 1})
    outcome = launch(resolved, folder, start, 1, quiet=True)
    assert start.begun.count("base/r1-1") == 1
    assert start.begun.count("base/control") == start.begun.count("base/freeze-D") == 2
    assert list(outcome.failed) == ["base/freeze-D"]
    assert sorted(outcome.retried) == ["base/control", "base/freeze-D"]
    assert len(outcome.finished) == 5
    found = compare_plan(folder)
    assert any(note.startswith("base/freeze-D failed") for note in found.notes)
    again = launch(resolved, folder, InThisProcess(), 1, quiet=True)  # the next launch tries it anew
    assert not again.failed
    found = compare_plan(folder)
    assert rows_of(found) == table_of_whole
    assert not any("failed" in note for note in found.notes)


def test_bad_input_is_not_tried_again(plan_file: Path, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plan"
    resolved = lay_out(plan_file, base, folder)

    class Refuses(InThisProcess):
        def __call__(self, folder: Path, key: str) -> InThisProcess.Done:
            self.begun.append(key)
            return self.Done(2)

    start = Refuses()
    assert len(launch(resolved, folder, start, 3, quiet=True).failed) == 6
    assert len(start.begun) == 6


@pytest.mark.usefixtures("no_pictures")
def test_another_plan_in_the_same_place_is_refused(whole: Path, base: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["--plan", str(whole.parent / "tiny.yaml"), "--ckpt", str(base), "--at=2", "--quiet", "--out", str(whole)]
    assert main([*command, "--steps=2"]) == 0  # the same one: nothing is left to do
    assert main([*command, "--steps=3"]) == 2
    assert "jobs differ" in " ".join(capsys.readouterr().err.split())


def test_a_plan_killed_while_it_was_written_is_begun_again(plan_file: Path, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plan"
    folder.mkdir()
    (folder / ".plan.json.77.tmp").write_text("{")
    lay_out(plan_file, base, folder)
    assert [path.name for path in folder.iterdir()] == ["plan.json"]
    (folder / "plan.json").rename(folder / "notes.txt")
    with pytest.raises(UserError, match="is not empty"):
        lay_out(plan_file, base, folder)


def test_a_missing_parent_is_said_before_anything_runs(plan_file: Path, base: Path, tmp_path: Path) -> None:
    copy, folder = tmp_path / "copy", tmp_path / "plan"
    shutil.copytree(base, copy)
    resolved = lay_out(plan_file, copy, folder)
    file = copy / "checkpoints/step-00000002.safetensors"
    shutil.copy(copy / "checkpoints/step-00000004.safetensors", file)
    start = InThisProcess()
    with pytest.raises(UserError, match="has changed since the plan began"):
        launch(resolved, folder, start, 1, quiet=True)
    file.unlink()
    with pytest.raises(UserError, match=r"of copy is missing"):
        launch(resolved, folder, start, 1, quiet=True)
    assert start.begun == []
    with pytest.raises(UserError, match="has no checkpoint of step 2"):
        resolve(read_plan(str(plan_file)), [str(copy)], at=2, steps=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entries: {}", None),
        ("title: x", "has no entries"),
        ("entries: {a: {changes: [freez: D]}}", "unknown change 'freez'; did you mean 'freeze'"),
        ("entries: {a: {changes: []}}", "entry a of the plan bad has no changes"),
        ("entries: {a: {form: scratch, changes: [r1: 1]}}", "did you mean 'from'"),
        ("entries: {a: {from: scratch, changes: [moments: D]}}", "entry a: a run from scratch can only change fields"),
        ("entries: {a: {changes: [{r1: 1, from: 20}]}}", "are shares of its length"),
        ("entries: {control: {changes: [r1: 1]}}", "'control' cannot be an entry's name"),
        ("entries: {a: {changes: [{lr: x2}, {lr: G=x3}]}}", "entry a: .* both set optim.G.lr"),
        ("entries: {a: {changes: [{reinit: D=blocks.0.conv3, from: 0.5}]}}", "entry a: .*did you mean"),
        ("entries: {a: {changes: [{clamp: {value: 1, layers: [linaer]}}]}}", "entry a: .*did you mean 'linear'"),
        ("settings: {train.batch: 8}\nentries: {a: {changes: [r1: 1]}}", "train.batch affects the results"),
        ("entries: [", "is not YAML"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(base: Path, tmp_path: Path, text: str, message: str | None) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    if message is None:
        assert [job.name for job in resolve(read_plan(str(path)), [str(base)], steps=1, seeds=0).jobs] == ["control"]
        return
    with pytest.raises(UserError, match=message):
        resolve(read_plan(str(path)), [str(base)], at=2, steps=2)


@pytest.mark.parametrize("name", shipped_plans())
def test_every_shipped_plan_fits_the_default_run(name: str, tmp_path: Path) -> None:
    """Each entry's configuration makes networks, and shares of the length become steps."""
    config = parse(["--data.train_per_class=60"] if name == "data-size" else []).config()
    state = TrainingState(config)
    path = tmp_path / "step-00001000.safetensors"
    save_checkpoint(path, state.tensors(), 1000, to_dict(config))
    resolved = resolve(read_plan(name), [str(path)], steps=400, scratch_steps=500)
    assert len(resolved.jobs) >= 5
    seen = set()
    for job in resolved.jobs:
        changed = config
        for timed in job.timed():
            changed = with_fields(changed, timed.change.fields(changed))
        if str(changed.model) not in seen and job.changes:
            seen.add(str(changed.model))
            TrainingState(changed, initialize=False)
        if job.entry == "annealed_normal":
            assert changed.latents.anneal_steps == 500


def test_one_change_under_other_seeds_is_a_plan_of_its_own(base: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--ckpt", str(base), "--at=2", "--freeze=D", "--seeds=2", "--steps=2", "--dry-run"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [line[0] for line in lines] == [
        "base/control", "base/control-seed-1", "base/control-seed-2",
        "base/freeze-D", "base/freeze-D-seed-1", "base/freeze-D-seed-2",
    ]  # fmt: skip
    assert " ".join(lines[-1]).endswith("freeze D; seed 1002")


def test_two_base_runs_need_two_checkpoints(base: Path, plan_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the same checkpoint is given twice"):
        resolve(read_plan(str(plan_file)), [str(base), str(base)], at=2, steps=2)
    files = [str(base / f"checkpoints/step-0000000{step}.safetensors") for step in (2, 4)]
    resolved = resolve(read_plan(str(plan_file)), files, steps=2)
    assert [one.name for one in resolved.bases] == ["base", "base-2"]
    assert "base and base-2 are checkpoints of one run, and not independent: n counts them as 2" in resolved.notes
    copy = shutil.copytree(base, tmp_path / "copy")
    notes = resolve(read_plan(str(plan_file)), [files[0], str(copy)], steps=2).notes
    assert any(note.startswith("base and copy have the same seed and configuration") for note in notes)
    assert not any(" and " in note for note in resolve(read_plan(str(plan_file)), files[:1], steps=2).notes)
    seeds = {tuple(job.changes[0]["change"]["seed"].items()) for job in resolved.jobs if job.kind == "seed"}
    assert seeds == {(("value", 1001.0),)}


def test_a_thinned_plan_compares_as_the_whole(whole: Path, base: Path, tmp_path: Path) -> None:
    """And it names no place on this machine."""
    out = thin_plan(whole, tmp_path / "thin", every=1, spectra_every=1)
    one, other = (table(compare_plan(folder)) for folder in (whole, out))
    assert one.entry.tolist() == other.entry.tolist()
    for name in ("last", "ended", "G_sigma0_growth", "D_sigma0_growth_layer", "D_loss_peak_mean10", "accuracy/D_real"):
        assert one[name].astype(str).tolist() == other[name].astype(str).tolist(), name
    assert not any(str(base) in path.read_text(errors="replace") for path in out.rglob("*") if path.is_file())
    assert not list(out.rglob("*.safetensors"))
    with pytest.raises(UserError, match="is not empty"):
        thin_plan(whole, out)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_plan_continues_and_ends_with_the_same_table(plan_file: Path, base: Path, tmp_path: Path) -> None:
    """kill -9 of one branch, then of the launcher, in processes of their own; then the same command again."""
    plan = tmp_path / "longer.yaml"
    entries = "freeze-D: {changes: [freeze: D]}, later: {changes: [{r1: 1, from: 0.5}]}"
    plan.write_text(f"seeds: 1\nentries: {{{entries}}}")
    common = ["--plan", str(plan), "--ckpt", str(base), "--at=2", "--steps=60", "--quiet"]
    common += ["--checkpoint.every=10", "--jobs=2"]
    command = [sys.executable, "-m", "interventions.cli.main", *common]
    assert subprocess.run([*command, "--out", str(tmp_path / "whole")], check=False).returncode == 0
    killed = tmp_path / "killed"
    launcher = subprocess.Popen([*command, "--out", str(killed)])
    victim = _wait_for_step(killed, 15)
    os.kill(victim, signal.SIGKILL)
    _wait_for_step(killed, 30, but=victim)
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    assert subprocess.run([*command, "--out", str(killed)], check=False).returncode == 0
    assert numbers(killed) == numbers(tmp_path / "whole")
    for key in ("freeze-D", "later"):
        one, other = (checkpoint_paths(folder / "base" / key)[-1] for folder in (killed, tmp_path / "whole"))
        assert_same_state(read_checkpoint(one).tensors, read_checkpoint(other).tensors)
    assert any(event["event"] == "resumed" for event in RunDirectory(killed / "base/control").events())


def _wait_for_step(folder: Path, step: int, but: int = 0) -> int:
    """Wait until some worker has said `step`; its process."""
    deadline = time.monotonic() + 500
    while time.monotonic() < deadline:
        for path in (folder / "progress").glob("*.json"):
            said = json.loads(path.read_text())
            if said["step"] >= step and said["pid"] != but:
                return said["pid"]
        time.sleep(0.1)
    raise AssertionError(f"no worker came to step {step}")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_benchmark_measures(base: Path, capsys: pytest.CaptureFixture) -> None:
    from interventions.cli.bench import main as bench

    assert bench(["--ckpt", str(base), "--steps=5"]) == 0
    said = capsys.readouterr().out
    assert "command to first step" in said
    assert said.count("steps/s") == 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_submitit_runs_the_jobs(plan_file: Path, base: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    command = ["--plan", str(plan_file), "--ckpt", str(base), "--at=2", "--steps=2", "--quiet", "--seeds=0"]
    assert main([*command, "--out", str(tmp_path / "plan"), "--jobs=2", "--slurm=cluster=local"]) == 0
    assert [row.outcome.ended for row in compare_plan(tmp_path / "plan").rows] == ["finished"] * 4


def test_a_plan_of_the_first_format_is_read_with_the_names_of_today() -> None:
    job = {"base": "a", "entry": "filter-seed-2", "kind": "luck", "steps": 4}
    change = {"change": {"set": {"field": "model.filter_G", "value": 5}}, "from": 0, "until": None}
    plan = {"format": "interventions-plan-1", "plan": "p", "title": "p", "bases": [], "settings": {}, "figures": []}
    (found,) = load_json({**plan, "notes": [], "jobs": [{**job, "changes": [change]}]}).jobs
    assert (found.entry, found.seed, found.kind, found.name) == ("filter", 2, "seed", "filter-seed-2")
    assert found.changes[0]["change"] == {"set": {"field": "model.kernel_size_G", "value": 5}}


def test_a_directory_with_the_name_of_a_shipped_plan_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rescue").mkdir()
    assert read_plan("rescue").is_shipped


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1], ids=lambda one: one.name)
def test_a_launcher_passes_lost_connections_and_warnings_on(
    number: signal.Signals, base: Path, plan_file: Path, tmp_path: Path
) -> None:
    """Its jobs finish their step and save; a handler that waited for the signal is called after."""
    asked: list[str] = []

    class Job:
        def poll(self) -> int | None:
            os.kill(os.getpid(), number)
            return 130 if asked else None

        def stop(self) -> None:
            asked.append("stop")

    before = signal.signal(number, lambda *_: asked.append("earlier handler"))
    try:
        folder = tmp_path / "plan"
        outcome = launch(lay_out(plan_file, base, folder), folder, lambda *_: Job(), 1, quiet=True)
    finally:
        signal.signal(number, before)
    assert outcome.interrupted
    assert asked == ["stop", "earlier handler"]


def test_submitit_may_queue_a_job_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks the function for what is to run then; without that, a job that met its time limit is given up."""
    helpers = types.ModuleType("submitit.helpers")
    helpers.DelayedSubmission = lambda function, *arguments: (function, arguments)
    monkeypatch.setitem(sys.modules, "submitit", types.ModuleType("submitit"))
    monkeypatch.setitem(sys.modules, "submitit.helpers", helpers)
    assert run_job.checkpoint("folder", "key") == (run_job, ("folder", "key"))


def test_a_plan_that_was_moved_goes_on(
    whole: Path, table_of_whole: list[list[str]], base: Path, tmp_path: Path
) -> None:
    """The plan and its base run are copied, and called otherwise: the digest of the parent decides."""
    folder, elsewhere = tmp_path / "moved", tmp_path / "called-otherwise"
    shutil.copytree(whole, folder)
    shutil.copytree(base, elsewhere)
    before = load_resolved(folder)
    key = before.jobs[-1].key
    shutil.rmtree(folder / key)
    plan = read_plan(str(whole.parent / "tiny.yaml"))
    resolved = save_resolved(resolve(plan, [str(elsewhere)], at=2, steps=2), folder)
    assert resolved == load_resolved(folder)
    assert [job.key for job in resolved.jobs] == [job.key for job in before.jobs]
    assert Path(resolved.bases[0].checkpoint).parts[-3] == "called-otherwise"
    start = InThisProcess()
    launch(resolved, folder, start, 1, quiet=True)
    assert start.begun == [key]
    assert numbers(folder) == table_of_whole
    with pytest.raises(UserError, match="bases"):
        save_resolved(resolve(plan, [str(elsewhere)], at=4, steps=2), folder)
