"""`--notify`: what the command gets, how its failure is said, and that training neither waits nor changes."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import TINY, assert_same_state

from biggan.cli.train import train_main
from biggan.errors import UserError
from biggan.observers import evaluation as observer
from biggan.observers.notify import Notify
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from biggan.run.directory import RunDirectory, make_event

OWN = "--eval.features=own_features:Pixels"
OPTIONS = [*TINY, "--eval.every=2", "--steps=16", OWN, "--monitor=none", "--quiet"]
PROGRAM = """
import pathlib, sys
pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())
"""


@pytest.fixture
def falling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every run be called collapsed at step 14."""

    def scores(self, network, settings, step, *rest) -> dict[str, float]:  # noqa: ANN001, ANN002
        return {"fid": 20.0 if step <= 10 else 500.0, "spread_share": 0.5}

    monkeypatch.setattr(observer.Evaluator, "scores", scores)


def test_the_command_gets_the_event_and_nothing_else_changes(falling: None, tmp_path: Path) -> None:
    program, told = tmp_path / "with space.py", tmp_path / "told;touch x"  # a shell would see two commands
    program.write_text(PROGRAM)
    line = f"{sys.executable} '{program}' '{told}'"
    without, run = tmp_path / "without", tmp_path / "run"
    assert train_main(["--out", str(without), *OPTIONS]) == 0
    assert train_main(["--out", str(run), "--notify", line, *OPTIONS]) == 0
    (alarm,) = RunDirectory(run).events_that_hold("alarm")
    assert told.read_text().endswith("}\n")
    assert json.loads(told.read_text()) == alarm | {"run": str(run.resolve())}
    assert not RunDirectory(run).events_that_hold("notify_failed")
    one, other = (checkpoint_paths(path)[-1] for path in (without, run))
    assert_same_state(read_checkpoint(one).tensors, read_checkpoint(other).tensors)
    texts = [p.read_text() for p in (run / "config.yaml", run / "run.json", run / "events.jsonl")]
    assert not any("with space" in text for text in texts)
    assert "with space" not in json.dumps(read_checkpoint(other).config.__repr__())


@pytest.mark.usefixtures("standing")
def test_a_resumed_run_notifies_only_if_told_to(falling: None, tmp_path: Path) -> None:
    program, told, run = tmp_path / "program.py", tmp_path / "told", tmp_path / "run"
    program.write_text(PROGRAM)
    line = f"{sys.executable} {program} {told}"
    assert train_main(["--out", str(run), "--notify", line, *OPTIONS, "--steps=8"]) == 0
    shorter = tmp_path / "again"
    shutil.copytree(run, shorter)
    assert train_main(["--resume", str(shorter), "--steps=16", "--quiet", OWN]) == 0
    assert not told.exists()
    assert train_main(["--resume", str(run), "--steps=16", "--quiet", "--notify", line, OWN]) == 0
    assert json.loads(told.read_text())["cause"] == "collapse"


@pytest.mark.usefixtures("standing")
def test_a_program_that_is_missing_is_an_event(falling: None, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train_main(["--out", str(run), "--notify", str(tmp_path / "nothing"), *OPTIONS]) == 0
    (event,) = RunDirectory(run).events_that_hold("notify_failed")
    assert event["step"] == 14
    assert "cannot be started" in event["words"]
    assert RunDirectory(run).events()[-1]["event"] == "finished"


class Recorder:
    """What `Notify` needs of a trainer."""

    def __init__(self, path: Path) -> None:
        self.run, self.events = RunDirectory(path), []

    def emit(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields["words"]))


def notified(program: str, tmp_path: Path, *, limit: float = 30.0) -> tuple[list[tuple[str, str]], float, float]:
    """The events after one alarm that runs this Python program, and the seconds that the alarm and the end took."""
    trainer, notify = Recorder(tmp_path), Notify(f"{sys.executable} -c '{program}'", limit=limit)
    notify.on_start(trainer)  # type: ignore[arg-type]
    began = time.monotonic()
    notify.on_event(make_event("alarm", 7, cause="collapse", onset=3))
    notify.after_step(7, {})
    started = time.monotonic()
    notify.on_end("finished")
    return trainer.events, started - began, time.monotonic() - started


def test_another_code_is_said_with_the_end_of_the_error_output(tmp_path: Path) -> None:
    events, _, _ = notified('import sys; sys.exit("no network: " + "x" * 1000)', tmp_path)
    ((kind, words),) = events
    assert kind == "notify_failed"
    assert "it ended with code 1: " in words
    assert words.endswith("x" * 100)
    assert len(words) < 400


def test_a_program_that_does_not_end_is_killed_with_its_children_and_holds_nothing_up(tmp_path: Path) -> None:
    left = tmp_path / "left"
    child = f'import time, pathlib; time.sleep(3); pathlib.Path("{left}").touch()'
    program = f'import subprocess, sys, time; subprocess.Popen([sys.executable, "-c", {child!r}]); time.sleep(60)'
    quoted = program.replace("'", '"""')
    events, start, end = notified(quoted, tmp_path, limit=1.0)
    assert [kind for kind, _ in events] == ["notify_failed"]
    assert "longer than 1 seconds and was killed" in events[0][1]
    assert start < 1.0 < end + start < 20
    time.sleep(3)
    assert not left.exists()


def test_a_program_that_reads_nothing_is_fine(tmp_path: Path) -> None:
    assert notified("pass", tmp_path)[0] == []


@pytest.mark.parametrize(("command", "words"), [("say 'so", "No closing quotation"), (" ", "is empty")])
def test_a_command_that_cannot_be_read_is_refused(command: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        Notify(command)
    assert train_main(["--out", str(tmp_path / "run"), "--notify", command]) == 2
    assert not (tmp_path / "run").exists()


def test_a_dry_run_takes_no_command(capsys: pytest.CaptureFixture) -> None:
    assert train_main(["--dry-run", "--notify", "true"]) == 2
    assert "--notify cannot be used with --dry-run" in " ".join(capsys.readouterr().err.split())
