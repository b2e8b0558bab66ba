"""A step replayed is the recorded one, and what is seen of each image is true."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import TINY

from biggan.cli.train import train_main
from biggan.data.sampler import PositionalSampler
from biggan.data.sources.opening import open_source
from biggan.run.directory import RunDirectory
from interventions.branch.step_replay import replay_step
from interventions.cli.main import main

OPTIONS = [*TINY, "--train.d_steps=2", "--regularizers.r1=1", "--regularizers.dropout_keep=0.9", "--monitor=none"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("replay") / "run"
    options = ["--steps=9", "--checkpoint.ring_every=3", "--checkpoint.ring_keep=2", "--checkpoint.every=0", *OPTIONS]
    assert train_main(["--out", str(path), "--quiet", *options]) == 0
    return path


@pytest.mark.parametrize("step", [7, 9])
def test_a_redone_step_is_the_recorded_one(run: Path, step: int) -> None:
    """Just behind a checkpoint, and steps behind it."""
    before = sorted(path.stat().st_mtime_ns for path in run.rglob("*"))
    replayed = replay_step(run, step)
    assert replayed.since == 6
    assert replayed.equal
    assert set(replayed.stats) <= set(replayed.recorded)
    assert before == sorted(path.stat().st_mtime_ns for path in run.rglob("*"))  # nothing is written


def test_what_is_seen_of_each_image(run: Path) -> None:
    """Indices and labels are the data's; logits and slopes make the recorded losses and accuracies."""
    replayed = replay_step(run, 8)
    frame = replayed.images()
    config = RunDirectory(run).read_config()
    source = open_source(config)
    assert len(frame) == 2 * 16 + 8
    losses = []
    for k in (0, 1):
        mine = frame[(frame["update"] == "D") & (frame["k"] == k)]
        real, fake = mine[mine["kind"] == "real"], mine[mine["kind"] == "fake"]
        sampler = PositionalSampler(len(source.train), batch=8, d_steps=2, seed=config.seed)
        positions = sampler.positions(7, k)
        assert real["index"].tolist() == [position.index for position in positions]
        assert real["class"].tolist() == source.train.__getitems__(positions)[1].tolist()
        losses.append((1 - real["logit"]).clip(lower=0).mean())  # the hinge
        assert ((real["logit"] < 1) == (real["loss_slope"] > 0)).all()
        assert ((fake["logit"] > -1) == (fake["loss_slope"] > 0)).all()
        assert (mine["parameter_gradient"] > 0).sum() == (mine["loss_slope"] > 0).sum()
    assert sum(losses) / 2 == pytest.approx(replayed.recorded["loss/D_real"], rel=1e-5)
    generator = frame[frame["update"] == "G"]
    assert -generator["logit"].mean() == pytest.approx(replayed.recorded["loss/G"], rel=1e-5)
    assert (frame["input_gradient"] > 0).all()
    assert replayed.recorded["penalty/D_r1"] > 0
    r1 = frame[frame["kind"] == "real"].groupby("k")["input_gradient"].apply(lambda g: (g**2).mean() / 2).mean()
    assert r1 == pytest.approx(replayed.recorded["penalty/D_r1"], rel=1e-4)  # the penalty's own numbers, from these


def test_a_step_outside_the_ring_lists_what_there_is(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["replay", "--ckpt", str(run), "--at=5"]) == 2
    assert "it has checkpoints of steps 6, 9" in " ".join(capsys.readouterr().err.split())
    assert main(["replay", "--ckpt", str(run), "--at=10"]) == 2
    assert "goes from step 1 to 9." in " ".join(capsys.readouterr().err.split())


def test_the_command_says_whether_it_is_what_was_recorded(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "images.csv"
    file = run / "checkpoints/step-00000006.safetensors"
    assert main(["replay", "--ckpt", str(file), "--at=7", "--out", str(out)]) == 0
    assert "numbers equal the recorded ones, bit for bit" in capsys.readouterr().out
    assert len(out.read_text().splitlines()) == 1 + 40


def test_a_step_of_a_branch_behind_a_timed_change(run: Path, tmp_path: Path) -> None:
    branch = tmp_path / "branch"
    changes = ["--lr=D=x2", "--until=1", "--then", "--moments=D", "--from=2"]
    options = ["--steps=4", "--checkpoint.ring_every=0", "--checkpoint.every=100", "--checkpoint.keep=9"]
    assert main(["--ckpt", str(run), "--at=6", "--out", str(branch), "--quiet", *options, *changes]) == 0
    first = branch / "checkpoints/step-00000006.safetensors"
    assert first.exists()
    for path in (branch / "checkpoints").glob("step-*"):
        if path != first:
            path.unlink()
    assert replay_step(branch, 10).since == 6
    assert replay_step(branch, 10).equal
