"""An intervention from outside: one class in a file of its own, which registers itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from biggan.run.checkpoint import read_checkpoint
from interventions.changes import CHANGES
from interventions.cli.main import main as intervene_main

SHRINK = '''
from dataclasses import dataclass

from interventions import Change


@dataclass(frozen=True)
class Shrink(Change, name="shrink"):
    """Multiply D's weights by a factor."""

    factor: float

    def operate(self, state, config):
        for weight in state.D.parameters():
            weight.mul_(self.factor)
        return {"factor": self.factor}
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "shrink.py").write_text(SHRINK)
    return tmp_path / "shrink.py"


def test_it_branches_is_remembered_and_named(
    finished: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    branch = tmp_path / "branch"
    line = ["--ckpt", str(finished), "--at=2", "--steps=1", "--out", str(branch), "--quiet"]
    try:
        assert intervene_main([*line, "--change-file", str(file), "--change", "shrink=0.5"]) == 0
        assert intervene_main([*line, "--change-file", str(file), "--change", "shrnk=0.5"]) == 2
        assert "did you mean 'shrink'" in " ".join(capsys.readouterr().err.split())
    finally:
        CHANGES.pop("shrink", None)
    before = read_checkpoint(finished / "checkpoints/step-00000002.safetensors").tensors["D.linear.weight"]
    after = read_checkpoint(branch / "checkpoints/step-00000002.safetensors").tensors["D.linear.weight"]
    assert torch.equal(after, before / 2)
    (change,) = json.loads((branch / "run.json").read_text())["changes"]
    assert (change["change"], change["said"]) == ({"shrink": {"factor": 0.5}}, {"factor": 0.5})


def test_the_help_names_every_change(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        intervene_main(["--help"])
    said = capsys.readouterr().out
    assert all(f"--{name} " in said for name in CHANGES)
