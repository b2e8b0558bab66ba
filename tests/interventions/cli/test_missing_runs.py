"""A run or a checkpoint that does not exist: every command says so in one way, and names what is near."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from biggan.cli.evaluate import eval_main
from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from interventions.cli.main import main as intervene_main
from spectra.cli.commands import main as spectra_main
from spectra.nearest import missing

COMMANDS: list[tuple[Callable[[list[str]], int], list[str]]] = [
    (train_main, ["--resume"]),
    (eval_main, ["--ckpt"]),
    (eval_main, ["--all", "--ckpt"]),
    (sample_main, ["--ckpt"]),
    (sample_main, ["--num", "4", "--out", "x.npz", "--ckpt"]),
    (sample_main, ["--film-strip"]),
    (intervene_main, ["--control", "--ckpt"]),
    (intervene_main, ["--control", "--at", "4", "--ckpt"]),
    (intervene_main, ["--plan", "section-4", "--ckpt"]),
    (intervene_main, ["--resume"]),
    (intervene_main, ["compare"]),
    (intervene_main, ["claims"]),
    (intervene_main, ["rescue"]),
    (intervene_main, ["replay", "--at", "2", "--ckpt"]),
    *((spectra_main, [name]) for name in ("plot", "events", "detect", "report", "scan")),
    (spectra_main, ["plot", "runs/digits"]),
]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, and a folder that is none."""
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "else"):
        (tmp_path / "runs" / name / "checkpoints").mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").touch()
        (tmp_path / "runs" / name / "events.jsonl").touch()
    (tmp_path / "runs" / "digits3").mkdir()
    return tmp_path / "runs"


@pytest.mark.parametrize(("command", "arguments"), COMMANDS)
def test_every_command_says_that_a_run_does_not_exist(
    command: Callable[[list[str]], int], arguments: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert command([*arguments, "runs/digits2"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "error: runs/digits2 does not exist. Beside it: runs/digits, runs/else." in said
    assert "standing statistics" not in said
    assert not Path("x.npz").exists()


def test_a_checkpoint_has_its_neighbours_and_its_run(runs: Path) -> None:
    for step in (100, 200, 300, 400):
        (runs / "digits" / "checkpoints" / f"step-{step:08d}.safetensors").touch()
    said = missing("runs/digits/checkpoints/step-00000250.safetensors")
    assert said is not None
    assert "Beside it: runs/digits/checkpoints/step-00000200.safetensors, " in said
    assert "step-00000400" in said or "step-00000300" in said
    assert said.endswith("(the nearest of 4).")
    lost = missing("runs/digit/checkpoints/step-00000200.safetensors")
    assert lost is not None
    assert lost.endswith("does not exist: there is no runs/digit. Beside it: runs/digits, runs/else.")
    assert missing("runs/digits") is None


def test_a_misspelt_folder_of_runs() -> None:
    assert missing("rnus/digits") == "rnus/digits does not exist: there is no rnus. Beside it: runs."
    assert missing("elsewhere/digits") == "elsewhere/digits does not exist: there is no elsewhere."


def test_a_folder_without_checkpoints_is_not_a_run(capsys: pytest.CaptureFixture) -> None:
    assert eval_main(["--ckpt", "runs/digits3"]) == 2
    assert "runs/digits3 is not a run directory" in " ".join(capsys.readouterr().err.split())
