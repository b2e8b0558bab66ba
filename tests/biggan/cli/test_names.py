"""Names that cannot be, and a user without a home: a message, and no folder is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import TINY

from biggan.cli.data import data_main
from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from interventions.cli.main import main as intervene_main
from spectra.cli.commands import main as spectra_main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("names") / "run"
    assert train_main(["--out", str(path), "--steps=3", "--quiet", "--checkpoint.every=1", *TINY]) == 0
    return path


def test_a_name_that_no_file_system_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 300 characters; one of 250, which has no room for what is put beside it, works."""
    assert train_main(["--out", str(tmp_path / "a" / ("x" * 300)), "--steps=1", *TINY]) == 2
    assert "name too long" in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []
    assert train_main(["--resume", str(tmp_path / ("x" * 300)), *TINY]) == 2
    assert train_main(["--resume-or-start", "--out", str(tmp_path / ("x" * 300)), *TINY]) == 2
    assert train_main(["--out", str(tmp_path / ("é" * 125)), "--steps=1", "--quiet", *TINY]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["é" * 125]


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """As in a container: no HOME, and no entry in the list of users."""
    for name in ("HOME", "BIGGAN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    line = ["--steps=1", "--quiet", "--monitor=none", *TINY]
    assert train_main(["--out", str(tmp_path / "evaluated"), *line, "--eval.every=1", "--eval.samples=1000"]) == 2
    assert "BIGGAN_CACHE=DIR" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert train_main(["--out", str(tmp_path / "run"), *line]) == 0


LONG = "x" * 300


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (sample_main, ["--ckpt", "CKPT", "--out", f"new/{LONG}.png", "--standing-passes", "1"]),
        (sample_main, ["--ckpt", "CKPT", "--num", "8", "--out", f"new/{LONG}"]),
        (sample_main, ["--ckpt", LONG]),
        (data_main, ["prepare", "digits", "--resolution", "8", "--out", f"new/{LONG}"]),
        (intervene_main, ["compare", "RUN", "--out", f"new/{LONG}"]),
        (intervene_main, ["--ckpt", "RUN", "--at", "1", "--control", "--steps", "1", "--out", f"new/{LONG}"]),
        (intervene_main, ["--ckpt", "RUN", "--at", "1", "--lr", "G=x2", "--seeds", "1", "--out", f"new/{LONG}"]),
        (intervene_main, ["replay", "--ckpt", "RUN", "--at", "2", "--out", f"new/{LONG}"]),
        (spectra_main, ["events", LONG]),
    ],
)
def test_other_commands_and_such_names(
    command: Callable, line: list[str], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused in a sentence; no folder is left of a path that cannot be."""
    places = {"RUN": str(run), "CKPT": str(run / "checkpoints" / "step-00000003.safetensors")}
    monkeypatch.chdir(tmp_path)
    assert command([places.get(word, word) for word in line]) == 2
    assert list(Path().iterdir()) == []
