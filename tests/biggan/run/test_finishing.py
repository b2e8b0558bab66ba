"""A kill anywhere around a checkpoint leaves nothing out of the record, and nothing undone after a resume."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import TINY, assert_same_state

from biggan.cli.train import train_main
from biggan.run import checkpoint as checkpoints
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from biggan.run.directory import RunDirectory
from spectra.record import files
from spectra.record.segments import read_record

OPTIONS = [
    *TINY, "--steps=6", "--checkpoint.every=2", "--checkpoint.keep=2", "--samples.every=2",
    "--samples.standing_passes=2", "--quiet",
]  # fmt: skip


def in_a_child(function: Callable[[], object]) -> int:
    """Run it in a forked process; the exit code, negative for a signal."""
    child = os.fork()
    if not child:
        try:
            os._exit(int(bool(function())))
        except BaseException:
            os._exit(99)
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def killed_at(place: Callable[[pytest.MonkeyPatch, Callable[[], None]], None], run: Path) -> None:
    """Train in a child that `place` arranges to kill."""

    def train() -> int:
        with pytest.MonkeyPatch.context() as patch:
            place(patch, lambda: os.kill(os.getpid(), signal.SIGKILL))
            return train_main(["--out", str(run), *OPTIONS])

    assert in_a_child(train) == -signal.SIGKILL


def after_the_rename(step: int) -> Callable:
    """The kill between a checkpoint's rename and all that follows."""

    def place(patch: pytest.MonkeyPatch, kill: Callable[[], None]) -> None:
        save = checkpoints.save_checkpoint

        def save_and_die(path: Path, *rest: object) -> str:
            digest = save(path, *rest)
            if path.name == f"step-{step:08d}.safetensors":
                kill()
            return digest

        patch.setattr("biggan.run.retention.save_checkpoint", save_and_die)
        # The record's own flush once a second would hide what a checkpoint does not wait for.
        patch.setattr("spectra.record.segments.FLUSH_SECONDS", 1000.0)

    return place


def before_the_event(kind: str) -> Callable:
    """The kill between the last file of a run and its last event."""

    def place(patch: pytest.MonkeyPatch, kill: Callable[[], None]) -> None:
        append = files.append_line

        def die(path: Path, line: str) -> None:
            if f'"{kind}"' in line:
                kill()
            append(path, line)

        patch.setattr("spectra.record.events.append_line", die)

    return place


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert in_a_child(lambda: train_main(["--out", str(run), *OPTIONS])) == 0
    return run


def what_is_left(run: Path) -> dict[str, object]:
    """All that a run is to have left, but for times and the events of sessions."""
    record = read_record(run)
    record = record[record.name != "monitor/seconds"]
    events = [(event["event"], event["step"]) for event in RunDirectory(run).events_that_hold()]
    return {
        "rows": [(row.step, row.name, repr(row.value)) for row in record.itertuples()],
        "events": sorted(event for event in events if event[0] not in ("resumed",)),
        "checkpoints": [path.name for path in checkpoint_paths(run)],
        "grids": {path.name: path.read_bytes() for path in sorted((run / "samples").iterdir())},
    }


PLACES = {
    "first": after_the_rename(2),
    "pruning": after_the_rename(6),
    "finished": before_the_event("finished"),
}


@pytest.mark.parametrize("place", ["first", "finished", pytest.param("pruning", marks=pytest.mark.slow)])
def test_a_kill_around_a_checkpoint_leaves_no_hole(place: str, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    killed_at(PLACES[place], run)
    assert train_main(["--resume", str(run), "--quiet"]) == 0
    left, expected = what_is_left(run), what_is_left(whole)
    for name in expected:
        assert left[name] == expected[name], name
    assert_same_state(
        read_checkpoint(checkpoint_paths(run)[-1]).tensors, read_checkpoint(checkpoint_paths(whole)[-1]).tensors
    )


@pytest.fixture
def record_order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is put onto the disk, in order."""
    order: list[str] = []
    sync, flush = files.sync, files.flush
    monkeypatch.setattr(files, "sync", lambda path: (order.append(Path(path).name), sync(path)))
    monkeypatch.setattr("spectra.record.segments.to_disk", lambda file: (order.append("record"), flush(file)))
    return order


def test_record_and_grid_are_on_the_disk_before_the_checkpoint(tmp_path: Path, record_order: list[str]) -> None:
    assert train_main(["--out", str(tmp_path / "run"), *OPTIONS, "--steps=2"]) == 0
    checkpoint = next(i for i, name in enumerate(record_order) if name.startswith(".step-00000002.safetensors"))
    grid = next(i for i, name in enumerate(record_order) if name.startswith(".step-00000002.png"))
    assert grid < checkpoint
    assert "record" in record_order[:checkpoint]


def test_a_requeue_loop_ends(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finished run is left as it is, with exit code 0 and how to train further."""
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert train_main(["--resume", str(whole)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "has reached step 6, and --steps is 6" in said
    assert "nothing is left to do" in said
    assert f"biggan-train --resume {whole} --steps N" in said
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    assert train_main(["--resume", str(whole), "--seed=5"]) == 2  # not what it was trained with
    assert "seed: 0 -> 5" in capsys.readouterr().err


def test_a_longer_run_that_was_killed_before_its_last_event_is_finished_again(finished: Path) -> None:
    """The event of its first total is not that of the second."""
    assert train_main(["--resume", str(finished), "--steps=4", "--quiet"]) == 0
    events = finished / "events.jsonl"
    events.write_text("".join(events.read_text().splitlines(keepends=True)[:-1]))
    for _ in range(2):
        assert train_main(["--resume", str(finished), "--quiet"]) == 0
    done = [event["step"] for event in RunDirectory(finished).events_that_hold("finished")]
    assert done == [3, 4]


def test_a_stop_at_an_alarm_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the checkpoint of the alarm's step and the stop, it stops when it is resumed, once."""
    from biggan.observers.progress import Progress

    class Alarming(Progress):
        acts_last = False

        def after_step(self, step: int, stats: object) -> None:
            if step == 2:
                self.trainer.emit("alarm", cause="explosion", onset=1)

        def on_start(self, trainer: object) -> None:
            self.trainer = trainer

    monkeypatch.setattr("biggan.run.assemble.Progress", Alarming)
    run = tmp_path / "run"
    line = [
        "--out",
        str(run),
        *OPTIONS[:-1],
        "--samples.every=0",
        "--monitor=none",
        "--train.on_alarm=stop",
        "--train.alarm_causes=[explosion]",
    ]
    assert train_main(line) == 1
    events = run / "events.jsonl"
    assert RunDirectory(run).events()[-1]["event"] == "stopped"
    events.write_text("".join(events.read_text().splitlines(keepends=True)[:-1]))
    assert train_main(["--resume", str(run), "--quiet"]) == 1
    stopped = RunDirectory(run).events()[-1]
    assert {name: stopped[name] for name in ("event", "step", "cause", "onset")} == {
        "event": "stopped", "step": 2, "cause": "explosion", "onset": 1,
    }  # fmt: skip
    assert train_main(["--resume", str(run), "--quiet"]) == 0  # the user has seen it
