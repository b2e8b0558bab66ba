"""The same bits: over kills and resumes, workers, repetitions, observers. Whole states are compared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import assert_same_state

from biggan.checkpoint import checkpoint_paths, read_checkpoint
from biggan.cli import train_main
from biggan.config import to_dict
from biggan.data import open_source, training_batches
from biggan.observers import Observer
from biggan.retention import CheckpointStore
from biggan.state import TrainingState
from biggan.step import Game
from spectra.monitor import Monitor
from spectra.records import read_record

OPTIONS = [
    "--model.resolution=8", "--model.ch_G=4", "--model.ch_D=4", "--train.batch=8", "--train.d_steps=2",
    "--regularizers.orthogonal_G=1e-3", "--ema.start=3", "--checkpoint.every=4", "--samples.every=5",
    "--spectra.every=2",
]  # fmt: skip


def final_state(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(checkpoint_paths(run)[-1]).tensors


def kill_after_step(run: Path, step: int, *options: str) -> None:
    """Train in a child and kill it with -9 as soon as it says that `step` is done."""
    code = f"""
import sys
from biggan import progress
class Loud(progress.Observer):
    def after_step(self, step, stats):
        print("step", step, flush=True)
progress.Progress = Loud
from biggan.cli import train_main
sys.exit(train_main({["--out", str(run), *OPTIONS, *options]!r}))
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.split() == ["step", str(step)]:
            break
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_equals_never_stopped(tmp_path: Path, workers: int) -> None:
    """Killed at 6 with its last checkpoint at 4, resumed with another number of workers, up to 12."""
    assert train_main(["--out", str(tmp_path / "whole"), "--quiet", "--steps=12", *OPTIONS]) == 0
    kill_after_step(tmp_path / "killed", 6, "--steps=12", "--monitor=none")
    assert [p.name for p in checkpoint_paths(tmp_path / "killed")] == ["step-00000004.safetensors"]
    resume = ["--resume", str(tmp_path / "killed"), "--quiet", f"--data.workers={workers}", "--monitor=spectra"]
    assert train_main(resume) == 0
    assert_same_state(final_state(tmp_path / "whole"), final_state(tmp_path / "killed"))
    whole, killed = (read_record(tmp_path / name).query("name.str.startswith('loss')") for name in ("whole", "killed"))
    assert whole.step.tolist() == killed.step.tolist()
    assert whole.value.tolist() == killed.value.tolist()


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tiny, play) -> None:  # noqa: ANN001
    one, first = play(tiny())
    two, second = play(tiny())
    other, _ = play(tiny(seed=1))
    assert_same_state(one.tensors(), two.tensors())
    assert first == second
    assert not torch.equal(one.tensors()["G.linear.weight"], other.tensors()["G.linear.weight"])


def test_global_random_state_is_neither_read_nor_moved(tiny, play) -> None:  # noqa: ANN001
    import numpy as np

    torch.manual_seed(1)
    one, _ = play(tiny())
    torch.manual_seed(2)
    np.random.seed(3)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    two, _ = play(tiny())
    assert_same_state(one.tensors(), two.tensors())
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()


class Draws:
    """Everything that a step draws: real images, noise and labels, by network and k."""

    def __init__(self, config) -> None:  # noqa: ANN001
        self.seen: dict[tuple, torch.Tensor] = {}
        state = TrainingState(config)
        game = Game(config, state, lambda network, k: None, lambda network, k: None)
        batches = training_batches(config, open_source(config), 0)
        for step in range(3):
            state.step = step
            for k in range(config.train.d_steps):
                self.seen[step, k, "real"], self.seen[step, k, "labels"] = next(batches)
                self.seen[step, k, "z"], self.seen[step, k, "fake labels"] = game._draw("D", k)
            self.seen[step, "G", "z"], self.seen[step, "G", "labels"] = game._draw("G", 0)


def test_another_d_step_leaves_all_other_draws_as_they_were(tiny) -> None:  # noqa: ANN001
    two, three = Draws(tiny(train={"d_steps": 2})).seen, Draws(tiny(train={"d_steps": 3})).seen
    assert len(three) == len(two) + 3 * 4
    assert all(torch.equal(tensor, three[key]) for key, tensor in two.items())
    assert not torch.equal(three[0, 2, "real"], three[0, 1, "real"])
    assert not torch.equal(three[0, 2, "z"], three[0, 1, "z"])


class Curious(Observer):
    """Reads everything an observer may read."""

    def on_start(self, trainer) -> None:  # noqa: ANN001
        self.trainer, self.calls = trainer, []

    def before_update(self, network: str, k: int) -> None:
        self.calls.append(("before", network, k))

    def after_backward(self, network: str, k: int) -> None:
        parameters = self.trainer.state.networks()[network].parameters()
        self.calls.append(("after", network, k, sum(p.grad.square().sum() for p in parameters).item()))

    def after_step(self, step: int, stats) -> None:  # noqa: ANN001
        self.calls.append(("step", step, sorted(stats)))
        self.trainer.emit("spike", note="just to see")


def test_observers_do_not_change_the_bits(tiny, train, tmp_path: Path) -> None:  # noqa: ANN001
    config = tiny(samples={"every": 2, "standing_passes": 2}, tensorboard={"every": 1})
    from biggan.observers import SampleGrids, TensorBoard

    plain = train(config, tmp_path / "plain", CheckpointStore())
    curious, run = Curious(), tmp_path / "watched"
    watched = train(config, run, CheckpointStore(), SampleGrids(), TensorBoard(), curious)
    assert_same_state(plain.state.tensors(), watched.state.tensors())
    first = [call[:3] for call in curious.calls[:7]]
    assert first[:6] == [(w, n, k) for n, k in (("D", 0), ("D", 1), ("G", 0)) for w in ("before", "after")]
    assert first[6][:2] == ("step", 1)
    assert [e["event"] for e in watched.run.events() if e["event"] == "spike"] == ["spike"] * 6


def test_the_monitor_does_not_change_the_bits(tiny, train, tmp_path: Path) -> None:  # noqa: ANN001
    plain = train(tiny(), tmp_path / "plain")
    config = tiny(spectra={"every": 1})

    class LateMonitor(Observer):
        """Makes the monitor once the networks are there."""

        def on_start(self, trainer) -> None:  # noqa: ANN001
            self.inner = Monitor(trainer.state.networks(), trainer.run.path, every=1)
            self.inner.on_start(trainer)

        def after_step(self, step: int, stats) -> None:  # noqa: ANN001
            self.inner.after_step(step, stats)

        def on_end(self, status: str) -> None:
            self.inner.on_end(status)

    watched = train(config, tmp_path / "watched", LateMonitor())
    assert_same_state(plain.state.tensors(), watched.state.tensors())
    assert to_dict(config)["spectra"]["every"] == 1
