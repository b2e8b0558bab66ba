"""Runs are born whole: a kill or a full disk while a run directory is made leaves nothing in the way of the next."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import TINY

from biggan.cli.train import train_main
from biggan.errors import UserError
from biggan.run.directory import RunDirectory, make_event
from spectra.record import files


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without asking git, which takes longest."""
    monkeypatch.setattr("biggan.run.directory.run_facts", lambda config: {})


def begin(run: Path, config: object) -> None:
    """Make a run's directory, with two files more than a new run has."""

    def fill(made: RunDirectory) -> None:
        made.append_event(make_event("started", 0))
        made.checkpoints.mkdir()
        files.write_text(made.checkpoints / "one", "1")

    directory = RunDirectory(run)
    directory.create_whole(config, {}, fill)
    directory.unlock()


def operations(path: Path, config: object, act: Callable[[int], None] = lambda now: None) -> int:
    """How many times `begin` flushes something to disk, renames or removes it; `act` is called before each."""
    count = 0

    def counting(real: Callable) -> Callable:
        def operation(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            act(count)
            return real(*arguments, **options)

        return operation

    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "replace", "unlink"):
            patch.setattr(os, name, counting(getattr(os, name)))
        begin(path, config)
    return count


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("exists", [False, True], ids=["new", "empty-folder"])
def test_a_kill_at_birth_leaves_nothing_in_the_way(exists: bool, every: int, tmp_path: Path, tiny: Callable) -> None:
    """Before every operation of the disk, or every fourth."""
    config = tiny()

    def place(name: str) -> Path:
        run = tmp_path / name / "run"
        run.parent.mkdir()
        if exists:
            run.mkdir()
        return run

    whole = place("whole")
    count = operations(whole, config)
    assert count >= 8
    expected = sorted(str(path.relative_to(whole)) for path in whole.rglob("*"))
    for n in range(1, count + 1, every):
        run = place(str(n))
        child = os.fork()
        if not child:
            try:
                operations(run, config, lambda now, n=n: os.kill(os.getpid(), signal.SIGKILL) if now == n else None)
            finally:
                os._exit(99)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        if RunDirectory(run).is_begun():  # the kill came after its name
            RunDirectory(run).read_config()
        else:
            if run.exists() and any(run.iterdir()):
                with pytest.raises(UserError, match=r"not a run directory|cut off while"):
                    RunDirectory(run).read_config()
            begin(run, config)
        assert sorted(str(path.relative_to(run)) for path in run.rglob("*")) == expected


@pytest.mark.parametrize("exists", [False, True], ids=["new", "empty-folder"])
def test_a_full_disk_at_birth_leaves_nothing(exists: bool, tmp_path: Path, tiny: Callable) -> None:
    config = tiny()

    def full(now: int, n: int) -> None:
        if now == n:
            raise OSError(errno.ENOSPC, "No space left on device")

    for n in range(1, 6):
        run = tmp_path / str(n) / "deep" / "run"
        if exists:
            run.mkdir(parents=True)
        with pytest.raises(OSError, match="No space"):
            operations(run, config, lambda now, n=n: full(now, n))
        assert run.exists() == exists
        assert not (list(run.iterdir()) if exists else list(tmp_path.glob(f"{n}*")))


def test_two_at_one_directory(tmp_path: Path, tiny: Callable) -> None:
    """The second one is refused, however far the first one is."""
    config, run = tiny(), tmp_path / "run"

    def other_first(now: int) -> None:
        if now == 1:
            begin(run, config)

    with pytest.raises(UserError, match="exists and is not empty"):
        operations(run, config, other_first)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    empty = tmp_path / "empty"
    empty.mkdir()
    first = RunDirectory(empty)
    first.lock()
    with pytest.raises(UserError, match="another process"):
        begin(empty, config)
    first.unlock()
    begin(empty, config)


def test_resume_or_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One command begins, goes on, finishes, and is told of a difference; the started event is there from the start."""
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").touch()  # what a killed birth of an earlier version left
    command = ["--resume-or-start", "--out", str(run), "--checkpoint.every=1", "--seed=3", "--monitor=none", *TINY]
    assert train_main([*command, "--steps=2"]) == 0
    assert train_main([*command, "--steps=3"]) == 0
    assert "resuming at step 2" in capsys.readouterr().out
    assert train_main([*command, "--steps=3"]) == 0
    assert "nothing is left to do" in capsys.readouterr().out
    names = [event["event"] for event in RunDirectory(run).events()]
    assert [name for name in names if name != "checkpoint"] == ["started", "finished", "resumed", "finished"]
    for change in (["--train.batch=16"], ["--seed=0"]):
        assert train_main([*command, "--steps=9", *change]) == 2
        assert change[0][2:].split("=")[0] + ":" in capsys.readouterr().err
    assert train_main([one for one in [*command, "--steps=9"] if one != "--seed=3"]) == 2  # not taken from the run
    assert "seed: 3 -> 0" in capsys.readouterr().err
    assert train_main(["--resume-or-start", *TINY]) == 2
    assert "needs --out DIR" in capsys.readouterr().err
