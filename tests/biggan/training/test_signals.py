"""Signals that stop a run: saved first, whoever else waits for them told after, and nobody's `nohup` undone."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny import TINY

from biggan.cli.train import train_main
from biggan.data.loader import training_batches
from biggan.data.sources.opening import open_source
from biggan.distributed import launch
from biggan.observers.progress import Progress
from biggan.run.checkpoint import checkpoint_paths
from biggan.run.directory import RunDirectory
from biggan.training.signals import STOP_SIGNALS, StopSignals, leave_signals_to_the_parent


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def act_after_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], object]) -> None:
    class Acting(Progress):
        def after_step(self, now: int, stats: object) -> None:
            if now == step:
                act()

    monkeypatch.setattr("biggan.run.assemble.Progress", Acting)


def train(run: Path, *options: str) -> int:
    return train_main(["--out", str(run), "--steps=5", "--monitor=none", *TINY, *options])


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2], ids=lambda one: one.name)
def test_lost_connections_and_batch_systems_let_the_step_be_saved(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act_after_step(monkeypatch, 2, lambda: os.kill(os.getpid(), number))
    signal.signal(number, signal.SIG_DFL)  # the tests themselves may run under nohup
    assert train(tmp_path / "run") == 130
    last = RunDirectory(tmp_path / "run").events()[-1]
    assert (last["event"], last["step"]) == ("interrupted", 2)
    assert checkpoint_paths(tmp_path / "run")[-1].name == "step-00000002.safetensors"
    assert signal.getsignal(number) is signal.SIG_DFL


def test_nohup_is_nohup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    act_after_step(monkeypatch, 2, lambda: [os.kill(os.getpid(), n) for n in (signal.SIGHUP, signal.SIGUSR1)])
    assert train(tmp_path / "run") == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_handler_that_was_there_is_called_when_the_state_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As submitit's, which queues the job again and ends the process."""
    run, calls = tmp_path / "run", []

    def requeue(number: int, frame: object) -> None:
        directory = RunDirectory(run)
        directory.lock()  # the run is free already
        directory.unlock()
        calls.append((number, directory.events()[-1]["event"], len(checkpoint_paths(run))))
        raise SystemExit(7)

    signal.signal(signal.SIGUSR2, requeue)
    act_after_step(monkeypatch, 2, lambda: [os.kill(os.getpid(), signal.SIGUSR2) for _ in range(3)])
    with pytest.raises(SystemExit, match="7"):
        train(run)
    assert calls == [(signal.SIGUSR2, "interrupted", 1)]
    assert signal.getsignal(signal.SIGUSR2) is requeue
    events = [event["event"] for event in RunDirectory(run).events()]
    assert "failed" not in events
    assert events.count("interrupted") == 1


def test_a_second_ctrl_c_is_impatient_and_other_signals_are_not() -> None:
    with StopSignals() as signals:
        for number in STOP_SIGNALS[1:]:
            os.kill(os.getpid(), number)
        assert signals.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    signals.pass_on()


def handlers_in(pipe: object) -> None:
    leave_signals_to_the_parent()
    pipe.send([signal.getsignal(number) for number in STOP_SIGNALS])


def test_workers_leave_signals_to_their_parent(tiny: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=handlers_in, args=(other,))
    child.start()
    assert mine.recv() == [signal.SIG_IGN] * 5
    child.join()
    monkeypatch.setattr("biggan.data.loader.worker_count", lambda config: 1)
    config = tiny(data={"workers": 1})
    batches = training_batches(config, open_source(config), 0)
    next(batches)
    for worker in multiprocessing.active_children():
        for number in STOP_SIGNALS:
            os.kill(worker.pid, number)
    next(batches)
    assert multiprocessing.active_children()
    del batches


def test_a_killed_launcher_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's parent is another one than at the start: torchrun is gone. Without torchrun it may go."""
    act_after_step(monkeypatch, 3, lambda: monkeypatch.setattr(launch, "_launcher", -1))
    assert train(tmp_path / "shell") == 0
    monkeypatch.undo()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    act_after_step(monkeypatch, 3, lambda: monkeypatch.setattr(launch, "_launcher", -1))
    assert train(tmp_path / "torchrun") == 130
    assert RunDirectory(tmp_path / "torchrun").events()[-1]["step"] == 3
