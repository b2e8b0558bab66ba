"""A run of version 0.1.0, recorded under the names of that time, is read, resumed, sampled, branched and compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import spectra
from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from biggan.config import SpeedConfig
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from interventions.cli.main import main as intervene_main

RECORDED = Path(__file__).resolve().parents[2] / "data" / "run-0.1.0"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RECORDED, tmp_path / "run"))


def test_its_checkpoint_verifies_and_its_fields_have_their_names_of_today(run: Path) -> None:
    checkpoint = read_checkpoint(checkpoint_paths(run)[-1])
    assert (checkpoint.step, checkpoint.finite) == (2, True)
    assert (checkpoint.config.model.kernel_size_G, checkpoint.config.model.conv1_width_D) == (3, "out")
    assert checkpoint.config.speed.fused_resampling is False
    assert "hidden_D" in (run / "config.yaml").read_text()  # recorded under the earlier name


def test_it_goes_on(run: Path, tmp_path: Path) -> None:
    assert train_main(["--resume", str(run), "--steps=4", "--quiet"]) == 0
    state = read_checkpoint(checkpoint_paths(run)[-1])
    assert state.step == 4
    assert state.config.speed == SpeedConfig()  # the preset has switches on now; the run keeps its own
    before = read_checkpoint(RECORDED / "checkpoints/step-00000002.safetensors")
    assert state.tensors.keys() == before.tensors.keys()
    assert not torch.equal(state.tensors["G.linear.weight"], before.tensors["G.linear.weight"])
    frames = spectra.load(run)
    assert sorted(frames["scalars"].step.unique()) == [1, 2, 3, 4]
    assert sample_main(["--ckpt", str(run), "--standing-passes=1", "--out", str(tmp_path / "grid.png")]) == 0


def test_a_branch_of_it_is_its_unbroken_self(run: Path, tmp_path: Path) -> None:
    assert train_main(["--resume", str(run), "--steps=4", "--quiet"]) == 0
    line = ["--ckpt", str(run), "--at=2", "--control", "--steps=2", "--out", str(tmp_path / "branch"), "--quiet"]
    assert intervene_main(line) == 0
    lineage = json.loads((tmp_path / "branch" / "run.json").read_text())["parent"]
    assert lineage["step"] == 2
