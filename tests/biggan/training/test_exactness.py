"""The same bits: over kills and resumes, workers, repetitions, observers. Whole states are compared."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from killing import kill_after_step
from tiny import assert_same_state

from biggan.cli.train import train_main
from biggan.data.loader import training_batches
from biggan.data.sources.opening import open_source
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from biggan.run.retention import CheckpointStore
from biggan.training.observer import Observer
from biggan.training.state import TrainingState
from biggan.training.step import Updater
from spectra.record.segments import read_record

OPTIONS = [
    "--model.resolution=8", "--model.ch_G=4", "--model.ch_D=4", "--train.batch=8", "--train.d_steps=2",
    "--regularizers.orthogonal_G=1e-3", "--ema.start=3", "--checkpoint.every=4", "--samples.every=5",
    "--samples.standing_passes=2", "--spectra.every=2",
]  # fmt: skip


def final_state(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(checkpoint_paths(run)[-1]).tensors


def test_killed_and_resumed_equals_never_stopped(tmp_path: Path) -> None:
    """Killed at 6 with its last checkpoint at 4, resumed with and without data-loader workers, up to 8."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train_main(["--out", str(whole), "--quiet", "--steps=8", *OPTIONS]) == 0
    kill_after_step(6, "biggan-train", "--out", str(killed), *OPTIONS, "--steps=8", "--monitor=none")
    assert [p.name for p in checkpoint_paths(killed)] == ["step-00000004.safetensors"]
    for workers in (0, 2):
        resumed = tmp_path / f"workers-{workers}"
        shutil.copytree(killed, resumed)
        options = ["--resume", str(resumed), "--quiet", f"--data.workers={workers}", "--monitor=spectra"]
        assert train_main(options) == 0
        assert_same_state(final_state(whole), final_state(resumed))
        one, other = (read_record(run).query("name.str.startswith('loss')") for run in (whole, resumed))
        assert one.step.tolist() == other.step.tolist()
        assert one.value.tolist() == other.value.tolist()


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
        updater = Updater(config, state, lambda network, k: None, lambda network, k: None)
        batches = training_batches(config, open_source(config), 0)
        for step in range(3):
            state.step = step
            for k in range(config.train.d_steps):
                self.seen[step, k, "real"], self.seen[step, k, "labels"] = next(batches)
                self.seen[step, k, "z"], self.seen[step, k, "fake labels"] = updater.draws.latents("D", k)
            self.seen[step, "G", "z"], self.seen[step, "G", "labels"] = updater.draws.latents("G", 0)


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
    config = tiny(samples={"every": 2, "standing_passes": 2}, tensorboard={"every": 1}, eval={"every": 2})
    from biggan.observers.evaluation import Evaluation
    from biggan.observers.sample_grids import SampleGrids
    from biggan.observers.tensorboard import TensorBoard

    plain = train(config, tmp_path / "plain", CheckpointStore())
    curious, run = Curious(), tmp_path / "watched"
    watched = train(config, run, Evaluation(), CheckpointStore(), SampleGrids(), TensorBoard(), curious)
    assert_same_state(plain.state.tensors(), watched.state.tensors())
    first = [call[:3] for call in curious.calls[:7]]
    assert first[:6] == [(w, n, k) for n, k in (("D", 0), ("D", 1), ("G", 0)) for w in ("before", "after")]
    assert first[6][:2] == ("step", 1)
    assert [e["event"] for e in watched.run.events() if e["event"] == "spike"] == ["spike"] * 6
    assert [e["step"] for e in watched.run.events() if e["event"] == "evaluation"] == [2, 2, 4, 4, 6, 6]


def test_the_monitor_does_not_change_the_bits(tmp_path: Path) -> None:
    """With D's view, at every step, and over checkpoints, where it forgets its warm starts."""
    for monitor in ("spectra", "none"):
        view = f"--discriminator_view.every={1 if monitor == 'spectra' else 0}"
        options = [*OPTIONS, "--spectra.every=1", f"--monitor={monitor}", view]
        assert train_main(["--out", str(tmp_path / monitor), "--quiet", "--steps=6", *options]) == 0
    assert_same_state(final_state(tmp_path / "spectra"), final_state(tmp_path / "none"))
    names = set(read_record(tmp_path / "spectra").name) - set(read_record(tmp_path / "none").name)
    assert {"sigma0/G.linear", "sigma2/D.blocks.0.conv1", "frobenius/G.embedding", "D/accuracy/val"} <= names


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    kill_after_step(2, "biggan-train", "--out", str(run), *OPTIONS, "--steps=3", "--monitor=none")
    assert checkpoint_paths(run) == []
    assert train_main(["--resume", str(run), "--quiet"]) == 0
    assert train_main(["--out", str(tmp_path / "whole"), "--steps=3", "--quiet", *OPTIONS]) == 0
    assert_same_state(final_state(run), final_state(tmp_path / "whole"))


@pytest.mark.slow
def test_sigterm_to_the_whole_group_saves(tmp_path: Path) -> None:
    """Schedulers signal every process of a job, the data loader's workers too."""
    code = f"""
import sys
from biggan.observers import progress
class Loud(progress.Observer):
    def after_step(self, step, stats):
        print("step", step, flush=True)
progress.Progress = Loud
from biggan.cli.train import train_main
sys.exit(train_main({["--out", str(tmp_path / "run"), "--steps=100000", "--data.workers=2", *OPTIONS]!r}))
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdout is not None
    next(line for line in child.stdout if line.split() == ["step", "2"])
    os.killpg(child.pid, signal.SIGTERM)
    child.communicate()
    assert child.returncode == 130
    assert len(checkpoint_paths(tmp_path / "run")) >= 1
