"""A data source from outside: one function and one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import TINY

from biggan.cli.train import train_main
from biggan.data.images import ImageArray, Images
from biggan.data.sources.registry import SOURCES, DataSource
from biggan.run.directory import RunDirectory


def open_archive(path: Path, resolution: int) -> tuple[Images, Images | None, tuple[str, ...]]:
    """An .npz file of `images` (N, R, R, 3), uint8, and `labels` (N,)."""
    with np.load(path) as archive:
        images, labels = archive["images"], archive["labels"]
    assert images.shape[1:] == (resolution, resolution, 3)
    return ImageArray(images, labels), None, ("stripes", "noise")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(SOURCES, "archive", DataSource(open_archive))
    drawn = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=drawn, labels=np.arange(40) % 2)
    return tmp_path / "data.npz"


def test_it_is_trained_on_resumed_and_named(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run, options = tmp_path / "run", [*TINY, "--model.classes=2", "--quiet"]
    line = ["--data.source=archive", f"--data.path={archive}", "--out", str(run), "--steps=2", *options]
    assert train_main(line) == 0
    identity = RunDirectory(run).data_identity()
    assert identity is not None
    assert (identity["train"] + identity["val"], identity["classes"]) == (40, 2)  # a validation split was held out
    assert train_main(["--resume", str(run), "--steps=3", "--quiet"]) == 0
    assert train_main(["--data.source=archiv", *options]) == 2
    assert "did you mean 'archive'" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        train_main(["--help"])
    assert "auto, digits, folder, parquet, packed, archive" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", SOURCES)
def test_every_entry_is_there(name: str) -> None:
    assert isinstance(SOURCES[name], DataSource)
