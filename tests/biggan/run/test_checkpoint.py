"""A checkpoint is whole or not there, says what is wrong with it, and the right ones stay."""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tiny import assert_same_state

from biggan.config import CheckpointConfig, to_dict
from biggan.errors import UserError
from biggan.run.checkpoint import (
    CheckpointError,
    checkpoint_paths,
    newest_checkpoint,
    peek,
    read_checkpoint,
    save_checkpoint,
)
from biggan.run.retention import CheckpointStore, retained
from biggan.run.session import find_start, open_resumed
from biggan.training.observer import Observer
from biggan.training.state import TrainingState
from biggan.training.trainer import Trainer
from spectra.record.segments import read_record

STATES: dict[int, TrainingState] = {}
"""After so many steps; nobody writes into them."""


@pytest.fixture
def saved(tiny, play, tmp_path: Path) -> tuple[Path, TrainingState]:  # noqa: ANN001
    """A checkpoint file of a state after three steps."""
    state = STATES[3] if 3 in STATES else STATES.setdefault(3, play(tiny(steps=3))[0])
    path = tmp_path / "run" / "checkpoints" / "step-00000003.safetensors"
    save_checkpoint(path, state.tensors(), state.step, to_dict(tiny(steps=3)))
    return path, state


def test_round_trip(saved, tiny) -> None:  # noqa: ANN001
    path, state = saved
    checkpoint = read_checkpoint(path)
    assert checkpoint.step == 3
    assert checkpoint.finite
    assert checkpoint.config == tiny(steps=3)
    fresh = TrainingState(checkpoint.config)
    fresh.load(checkpoint.tensors, checkpoint.step)
    assert fresh.step == 3
    assert_same_state(fresh.tensors(), state.tensors())
    with safe_open(path, framework="pt") as file:
        assert set(file.metadata()) == {"step", "config", "digest", "finite", "format"}
        assert json.loads(file.metadata()["config"])["model"]["resolution"] == 8
        prefixes = {name.split(".")[0] for name in file.keys()}  # noqa: SIM118
    assert prefixes == {"G", "D", "G_ema", "optim_G", "optim_D"}


def test_the_state_holds_everything_that_a_step_changes(tiny, play) -> None:  # noqa: ANN001
    tensors = TrainingState(tiny()).tensors()
    assert {"G.linear.weight", "G.linear.u", "G.norm.running_mean", "D.embedding.u", "G_ema.linear.weight"} <= set(
        tensors
    )
    for key in ("step", "exp_avg", "exp_avg_sq"):
        assert f"optim_D.blocks.0.conv1.weight.{key}" in tensors
    # Loaded into another run's state, the next steps are the same: nothing else is carried from step to step.
    one, _ = play(tiny(steps=2))
    other, _ = play(tiny(steps=1, seed=5))
    other.load(one.tensors(), one.step)
    one, _ = play(tiny(steps=4), one)
    other, _ = play(tiny(steps=4), other)
    assert_same_state(one.tensors(), other.tensors())


def test_a_truncated_file_is_recognised(saved) -> None:  # noqa: ANN001
    path, _ = saved
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        read_checkpoint(path)


@pytest.mark.parametrize("where", [0.02, 0.5, 0.99])
def test_a_flipped_byte_is_recognised(saved, where: float) -> None:  # noqa: ANN001
    path, _ = saved
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"does not verify|not a complete safetensors file"):
        read_checkpoint(path)


def test_altered_metadata_is_recognised(saved) -> None:  # noqa: ANN001
    path, _ = saved
    content = path.read_bytes()
    assert content.count(b'"step":"3"') == 1
    path.write_bytes(content.replace(b'"step":"3"', b'"step":"4"'))
    with pytest.raises(CheckpointError, match="does not verify"):
        read_checkpoint(path)


def test_a_file_of_another_kind_is_recognised(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="written by another program"):
        read_checkpoint(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path / "missing.safetensors")


def test_another_architecture_is_refused_before_anything_is_copied(saved, tiny) -> None:  # noqa: ANN001
    path, _ = saved
    other = TrainingState(tiny(model={"resolution": 8, "ch": 8, "z_dim": 12}))
    before = {name: tensor.clone() for name, tensor in other.tensors().items()}
    with pytest.raises(UserError, match=r"another architecture.*expected"):
        other.load(read_checkpoint(path).tensors, 3)
    assert_same_state(before, other.tensors())


def test_the_newest_whole_and_finite_checkpoint_is_taken(saved, tiny) -> None:  # noqa: ANN001
    path, state = saved
    run, config = path.parents[1], to_dict(tiny())
    poisoned = {name: tensor.clone() for name, tensor in state.tensors().items()}
    poisoned["G.linear.weight"][0, 0] = float("nan")
    save_checkpoint(path.with_name("step-00000004.safetensors"), poisoned, 4, config)
    path.with_name("step-00000005.safetensors").write_bytes(b"torn")
    checkpoint, passed = newest_checkpoint(run)
    assert checkpoint.step == 3
    assert "step-00000005" in passed[0]
    assert "NaN" in passed[1]
    path.unlink()
    checkpoint, passed = newest_checkpoint(run)
    assert checkpoint.step == 4
    assert not checkpoint.finite
    path.with_name("step-00000004.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint to continue from"):
        newest_checkpoint(run)


@pytest.mark.slow
def test_a_disk_that_fills_while_saving_leaves_the_previous_checkpoint_whole(tmp_path: Path) -> None:
    """After its first checkpoint a run may write no file beyond 100 kB: exit code 2, nothing half-written."""
    run = tmp_path / "run"
    code = f"""
import resource, sys
from biggan.observers import progress
class Disk(progress.Observer):
    def on_checkpoint(self, step, path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
progress.Progress = Disk
from biggan.cli.train import train_main
tiny = ["--model.resolution=8", "--model.ch_G=4", "--model.ch_D=4", "--train.batch=8", "--samples.every=0"]
sys.exit(train_main(["--out", {str(run)!r}, "--steps=9", "--checkpoint.every=2", "--tensorboard.every=0", *tiny]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    error = " ".join(done.stderr.split())
    assert "could not save the checkpoint" in error
    assert "Earlier checkpoints are intact" in error
    assert "Traceback" not in error
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002.safetensors"]
    assert read_checkpoint(run / "checkpoints" / "step-00000002.safetensors").step == 2
    assert read_record(run).step.max() == 4


def test_retention() -> None:
    config = CheckpointConfig(every=10, keep=2, permanent_every=50, ring_every=5, ring_keep=3)
    finite = dict.fromkeys([*range(5, 101, 5)], True)
    assert retained(finite, config) == {90, 100} | {50, 100} | {90, 95, 100}
    # A last step on no interval counts as a regular one; non-finite ones do not push finite ones out.
    finite = {60: True, 70: True, 80: False, 90: False, 93: False}
    assert retained(finite, CheckpointConfig(every=10, keep=2)) == {60, 70, 93}
    assert retained({10: False, 20: False}, CheckpointConfig(every=10, keep=1)) == {20}
    assert retained({10: True, 20: True, 30: False}, CheckpointConfig(every=10, keep=1)) == {
        20,
        30,
    }  # always the newest
    assert retained({5: True, 10: False}, CheckpointConfig(every=5, keep=1)) == {5, 10}


def test_one_place_of_the_ring_is_for_the_last_state_that_was_well() -> None:
    config = CheckpointConfig(every=0, ring_every=5, ring_keep=3)
    finite = dict.fromkeys([40, 45, *range(80, 101, 5)], True)
    assert retained(finite, config, well=97) == {90, 95, 100}
    assert retained(finite, config, well=47) == {45, 95, 100}
    assert retained(finite, config, well=39) == {90, 95, 100}
    assert retained(finite, CheckpointConfig(every=0, ring_every=5, ring_keep=1), well=47) == {45, 100}


class Alarms(Observer):
    """Raises an alarm at given steps."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def on_start(self, trainer) -> None:  # noqa: ANN001
        self.trainer = trainer

    def after_step(self, step: int, stats) -> None:  # noqa: ANN001
        if step in self.steps:
            self.trainer.emit("alarm", values={"sigma0": "inf"})


@pytest.mark.usefixtures("standing")
def test_an_alarm_freezes_the_ring(tiny, train, tmp_path: Path) -> None:  # noqa: ANN001
    ring = {"every": 0, "ring_every": 1, "ring_keep": 2}
    config = tiny(steps=14, checkpoint=ring)
    run = train(config, tmp_path / "run", CheckpointStore(), Alarms(3, 4, 7, 10, 13)).run
    frozen = {p.parent.name: [] for p in run.checkpoints.glob("frozen-*/*")}
    for path in sorted(run.checkpoints.glob("frozen-*/*")):
        frozen[path.parent.name].append(path.name)
        read_checkpoint(path)
    # 4 belongs to the trouble that began at 3; of four rings the oldest went. An alarm precedes its step's save.
    assert frozen == {
        f"frozen-{step:08d}": [f"step-{step - 2:08d}.safetensors", f"step-{step - 1:08d}.safetensors"]
        for step in (7, 10, 13)
    }
    assert [p.name for p in checkpoint_paths(run.path)] == ["step-00000013.safetensors", "step-00000014.safetensors"]


@pytest.mark.usefixtures("standing")
@pytest.mark.parametrize(("second", "frozen"), [(4, [3]), (7, [3]), (8, [3, 8])])
def test_alarms_within_the_rings_length_freeze_it_once(second: int, frozen: list[int], tiny, train, tmp_path) -> None:  # noqa: ANN001
    config = tiny(steps=9, checkpoint={"every": 0, "ring_every": 2, "ring_keep": 2})
    run = train(config, tmp_path / "run", CheckpointStore(), Alarms(3, second)).run
    assert sorted(int(path.name.removeprefix("frozen-")) for path in run.checkpoints.glob("frozen-*")) == frozen


@pytest.mark.usefixtures("standing")
def test_an_earlier_resume_sets_the_frozen_rings_of_the_lost_future_aside(tiny, train, tmp_path: Path) -> None:  # noqa: ANN001
    config = tiny(steps=8, checkpoint={"every": 0, "ring_every": 1, "ring_keep": 8})
    run = train(config, tmp_path / "run", CheckpointStore(), Alarms(7)).run
    for path in checkpoint_paths(run.path)[4:]:
        path.unlink()
    session = open_resumed(dataclasses.replace(config, out=None), run.path, find_start(run.path), allow_change=False)
    assert session.state.step == 4
    observers = [CheckpointStore(), Alarms(6)]
    Trainer(session.config, session.state, session.source, session.run, observers).train()
    assert [path.name for path in sorted(run.checkpoints.glob("frozen-*"))] == ["frozen-00000006"]
    assert (run.checkpoints / "skipped" / "frozen-00000007").is_dir()


@pytest.mark.usefixtures("standing")
def test_what_belongs_to_the_very_step_is_not_set_aside(tiny, train, tmp_path: Path) -> None:  # noqa: ANN001
    """A resume at step 4 goes on with its checkpoint, its best state and the ring that an alarm froze there."""
    config = tiny(steps=4, checkpoint={"every": 0, "ring_every": 1, "ring_keep": 2})
    trainer = train(config, tmp_path / "run", CheckpointStore(), Alarms(4))
    folder = trainer.run.checkpoints
    shutil.copy(folder / "step-00000004.safetensors", folder / "best.safetensors")
    before = sorted(path.relative_to(folder) for path in folder.rglob("*.safetensors"))
    assert len(before) > 4
    CheckpointStore().on_start(trainer)
    assert sorted(path.relative_to(folder) for path in folder.rglob("*.safetensors")) == before


@pytest.mark.usefixtures("standing")
def test_the_last_step_is_always_saved(tiny, train, tmp_path: Path) -> None:  # noqa: ANN001
    run = train(tiny(steps=5, checkpoint={"every": 0}), tmp_path / "run", CheckpointStore()).run
    assert [p.name for p in checkpoint_paths(run.path)] == ["step-00000005.safetensors"]
    kinds = [event["event"] for event in run.events()]
    assert kinds == ["started", "checkpoint", "finished"]


@pytest.mark.usefixtures("standing")
def test_a_state_that_is_saved_is_not_saved_again(tiny, train, tmp_path: Path) -> None:  # noqa: ANN001
    """Opened at its last checkpoint and left there."""
    run = train(tiny(steps=3, checkpoint={"every": 3}), tmp_path / "run", CheckpointStore()).run
    (path,) = checkpoint_paths(run.path)
    before = path.stat().st_mtime_ns, path.stat().st_ino
    config = dataclasses.replace(read_checkpoint(path).config, steps=5)
    session = open_resumed(config, run.path, find_start(run.path), allow_change=False)
    Trainer(session.config, session.state, session.source, session.run, [CheckpointStore()]).train(until=3)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    assert [event["step"] for event in run.events() if event["event"] == "checkpoint"] == [3]


@pytest.mark.usefixtures("standing")
def test_without_a_ring_an_alarm_freezes_nothing(tiny, train, tmp_path: Path) -> None:  # noqa: ANN001
    run = train(
        tiny(steps=4, checkpoint={"every": 1, "ring_every": 0}), tmp_path / "run", CheckpointStore(), Alarms(3)
    ).run
    assert not list(run.checkpoints.glob("frozen-*"))


@pytest.mark.usefixtures("standing")
def test_a_resume_knows_the_last_alarm_and_tidies_up(tiny, train, tmp_path: Path) -> None:  # noqa: ANN001
    """An alarm soon after the last one of the session before belongs to the same trouble; half-written files go."""
    ring = {"every": 0, "ring_every": 1, "ring_keep": 3}
    run = train(tiny(steps=9, checkpoint=ring), tmp_path / "run", CheckpointStore(), Alarms(2, 8)).run
    (left := run.checkpoints / ".step-00000007.safetensors.1.tmp").write_text("half")
    config = tiny(steps=12, checkpoint=ring)
    session = open_resumed(config, run.path, find_start(run.path), allow_change=False)
    Trainer(session.config, session.state, session.source, session.run, [CheckpointStore(), Alarms(10)]).train()
    assert sorted(path.name for path in run.checkpoints.glob("frozen-*")) == ["frozen-00000002", "frozen-00000008"]
    assert not left.exists()


def test_a_file_that_the_system_does_not_open_is_not_called_damaged(finished: Path) -> None:
    """A resume must not take an earlier checkpoint because too many files are open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    path = checkpoint_paths(finished)[-1]
    read_checkpoint(path)  # imports what it needs
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        for read in (read_checkpoint, peek):
            with pytest.raises(UserError, match="cannot be opened") as said:
                read(path)
            assert not isinstance(said.value, CheckpointError)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
