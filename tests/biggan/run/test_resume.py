"""Resuming from the command line, what it refuses, and interrupting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import TINY

from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from biggan.errors import UserError
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from biggan.run.directory import RunDirectory
from biggan.run.session import find_start, open_resumed
from biggan.training.observer import Observer
from biggan.training.trainer import Trainer


def test_resume_takes_the_runs_own_configuration(finished: Path, capsys: pytest.CaptureFixture) -> None:
    assert train_main(["--resume", str(finished), "--steps=2", "--quiet"]) == 2
    assert "has reached step 3, and --steps is 2" in " ".join(capsys.readouterr().err.split())
    assert train_main(["--resume", str(finished), "--steps=4", "--quiet"]) == 0
    checkpoint = read_checkpoint(checkpoint_paths(finished)[-1])
    assert checkpoint.step == 4
    assert checkpoint.config.train.batch == 8


def test_changes_of_numbers_are_listed_and_refused(finished: Path, capsys: pytest.CaptureFixture) -> None:
    resume = ["--resume", str(finished), "--steps=5", "--optim.G.lr=0.5", "--checkpoint.every=2", "--quiet"]
    before = (finished / "events.jsonl").read_text()
    assert train_main(resume) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "optim.G.lr: 0.001 -> 0.5" in error
    assert "checkpoint.every" not in error
    assert "--allow-change" in error
    assert (finished / "events.jsonl").read_text() == before
    assert train_main([*resume, "--allow-change"]) == 0
    resumed = [json.loads(line) for line in (finished / "events.jsonl").read_text().splitlines()]
    assert [e["changes"] for e in resumed if e["event"] == "resumed"] == [{"optim.G.lr": [0.001, 0.5]}]
    assert read_checkpoint(checkpoint_paths(finished)[-1]).config.optim.G.lr == 0.5


def test_lost_checkpoints_are_noticed(finished: Path, capsys: pytest.CaptureFixture) -> None:
    """A run that was saved does not begin again in silence."""
    for path in checkpoint_paths(finished):
        path.unlink()
    assert train_main(["--resume", str(finished), "--quiet"]) == 2
    assert "although one of step 3 was saved there" in " ".join(capsys.readouterr().err.split())


def test_one_process_at_a_time(finished: Path, capsys: pytest.CaptureFixture) -> None:
    run = RunDirectory(finished)
    run.lock()
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    assert train_main(["--resume", str(finished), "--steps=4", "--quiet"]) == 2
    assert "another process is training in" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after.items() <= before.items()
    run.unlock()
    assert train_main(["--resume", str(finished), "--steps=4", "--quiet"]) == 0


def test_another_build_is_noticed(finished: Path, capsys: pytest.CaptureFixture) -> None:
    path = finished / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"torch": "1.0"}))
    assert train_main(["--resume", str(finished), "--steps=4"]) == 0
    assert "torch was 1.0 when the run began" in capsys.readouterr().out
    events = [json.loads(line) for line in (finished / "events.jsonl").read_text().splitlines()]
    (resumed,) = [event for event in events if event["event"] == "resumed"]
    assert resumed["other_versions"]["torch"][0] == "1.0"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-9], "not a complete safetensors file"),
        (lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], "does not verify"),
    ],
)
def test_damaged_checkpoints_leave_the_run_as_it_is(
    damage: Callable[[bytes], bytes], words: str, finished: Path, capsys: pytest.CaptureFixture
) -> None:
    for path in checkpoint_paths(finished):
        path.write_bytes(damage(path.read_bytes()))
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert train_main(["--resume", str(finished), "--steps=4"]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert sample_main(["--ckpt", str(checkpoint_paths(finished)[0]), "--out", str(finished / "x.png")]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


def test_a_checkpoint_of_another_architecture(finished: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    resume = ["--resume", str(finished), "--steps=4", "--model.ch_G=8", "--allow-change"]
    assert train_main(resume) == 2
    assert "has another architecture" in " ".join(capsys.readouterr().err.split())
    after = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after.items() <= before.items()


def test_stray_files_do_not_disturb(finished: Path) -> None:
    newest = checkpoint_paths(finished)[-1]
    (newest.parent / "step-00000001-best.safetensors").write_bytes(b"")
    (newest.parent / "step-00000009.safetensors").write_bytes(newest.read_bytes())  # renamed: it holds step 3
    assert train_main(["--resume", str(finished), "--steps=4", "--quiet"]) == 0
    assert read_checkpoint(checkpoint_paths(finished)[-1]).step == 4


def test_resume_says_what_it_skipped(finished: Path, capsys: pytest.CaptureFixture) -> None:
    newest = checkpoint_paths(finished)[-1]
    newest.write_bytes(newest.read_bytes()[:-7])
    assert train_main(["--resume", str(finished), "--steps=4"]) == 0
    said = capsys.readouterr().out
    assert "skipped" in said
    assert "step-00000003" in said
    assert "resuming at step 2" in said
    assert (finished / "checkpoints" / "skipped" / newest.name).exists()
    events = [json.loads(line) for line in (finished / "events.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e.get("superseded")] == [3, 3]


def test_a_signal_in_the_last_step_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Observer):
        def after_step(self, step: int, stats: dict) -> None:
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("biggan.run.assemble.Progress", Late)
    assert train_main(["--out", str(tmp_path / "run"), "--steps=2", *TINY]) == 0
    assert "finished at step 2" in capsys.readouterr().out


def test_a_second_ctrl_c_stops_at_once_and_does_not_say_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class VeryImpatient(Observer):
        def after_backward(self, network: str, k: int) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("biggan.run.assemble.Progress", VeryImpatient)
    assert train_main(["--out", str(tmp_path / "run"), "--steps=9", *TINY]) == 1
    assert "nothing was saved beyond the last checkpoint" in capsys.readouterr().err
    assert checkpoint_paths(tmp_path / "run") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_prints_how_to_go_on(
    tmp_path: Path, number: int, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(Observer):
        def after_backward(self, network: str, k: int) -> None:
            if network == "G" and self.trainer.state.step == 1:
                os.kill(os.getpid(), number)

        def on_start(self, trainer: Trainer) -> None:
            self.trainer = trainer

    monkeypatch.setattr("biggan.run.assemble.Progress", Impatient)
    run, before = tmp_path / "run", signal.getsignal(number)
    assert train_main(["--out", str(run), "--steps=100", *TINY]) == 130
    assert signal.getsignal(number) is before
    assert f"biggan-train --resume {run}" in capsys.readouterr().out
    assert [read_checkpoint(path).step for path in checkpoint_paths(run)] == [2]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [(event["event"], event["step"]) for event in events[-2:]] == [("checkpoint", 2), ("interrupted", 2)]


def test_a_forked_process_holds_no_lock_of_a_killed_parent(tmp_path: Path) -> None:
    """Such as a loader's worker, which may outlive its parent by seconds."""
    code = (
        "import os, sys, time; from pathlib import Path; from biggan.run.directory import RunDirectory\n"
        "RunDirectory(Path(sys.argv[1])).lock()\n"
        "ready, forked = os.pipe()\n"
        "child = os.fork()\n"
        "if child: os.read(ready, 1); print(child, flush=True); os.kill(os.getpid(), 9)\n"
        "os.write(forked, b'.'); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.wait()
    os.kill(child, 0)  # it is alive
    run = RunDirectory(tmp_path)
    try:
        run.lock()  # raises where the child still holds it
        with pytest.raises(UserError, match="another process is training"):
            RunDirectory(tmp_path).lock()
    finally:
        run.unlock()
        os.kill(child, signal.SIGKILL)


def test_a_run_that_does_not_say_which_data_it_had_takes_these(finished: Path) -> None:
    facts = json.loads((finished / "run.json").read_text())
    data = facts.pop("data")
    (finished / "run.json").write_text(json.dumps(facts))
    assert train_main(["--resume", str(finished), "--steps=4", "--quiet"]) == 0
    assert json.loads((finished / "run.json").read_text())["data"] == data


def test_events_of_steps_that_are_done_again_are_superseded(finished: Path) -> None:
    checkpoint_paths(finished)[-1].unlink()
    assert train_main(["--resume", str(finished), "--steps=3", "--quiet"]) == 0
    events = [json.loads(line) for line in (finished / "events.jsonl").read_text().splitlines()]
    saved = [(event["step"], bool(event.get("superseded"))) for event in events if event["event"] == "checkpoint"]
    assert saved == [(1, False), (2, False), (3, True), (3, False)]


def test_opening_a_run_supersedes_what_lies_after_its_state(finished: Path) -> None:
    """Whoever trains on, with a monitor or without."""
    checkpoint_paths(finished)[-1].unlink()
    start = find_start(finished)
    session = open_resumed(start.config, finished, start, allow_change=False)
    session.run.unlock()
    later = [event for event in session.run.events() if event["step"] > 2]
    assert later
    assert all(event.get("superseded") for event in later)


def test_a_damaged_run_json_is_named(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished / "run.json").write_text('{"version": "0.')
    assert train_main(["--resume", str(finished), "--steps=4", "--quiet"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "run.json is damaged" in error
    assert "move it away" in error
    (finished / "run.json").unlink()
    assert train_main(["--resume", str(finished), "--steps=4", "--quiet"]) == 0


def test_events_that_hold_are_those_no_resume_superseded(tmp_path: Path) -> None:
    run, scored = RunDirectory(tmp_path), {"weights": "raw", "scores": {}}
    for kind, step in (("started", 0), ("evaluation", 2), ("alarm", 3), ("evaluation", 4)):
        run.append_event({"event": kind, "step": step} | scored)
    run.supersede_events(3)
    run.append_event({"event": "evaluation", "step": 6} | scored)
    assert [event["step"] for event in run.events()] == [0, 2, 3, 4, 6]
    assert [event["step"] for event in run.events_that_hold()] == [0, 2, 3, 6]
    assert [event["step"] for event in run.events_that_hold("evaluation")] == [2, 6]
    assert [event["step"] for event in run.events_that_hold("evaluation", through=5)] == [2]
