"""`biggan-sample --num`: one file or a folder; the same over kills, processes and ways to store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ranks import two_processes
from tiny import TINY

from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from biggan.data.sources.folder import open_folder
from biggan.evaluation import export

NUM = 150


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    assert train_main(["--out", str(path), "--steps=1", "--quiet", *TINY]) == 0
    return path


def options(run: Path, out: Path, *more: str) -> list[str]:
    return ["--ckpt", str(run), "--num", str(NUM), "--standing-passes", "2", "--out", str(out), *more]


def contents(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as archive:
        return archive["images"], archive["labels"]


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("samples") / "whole.npz"
    assert sample_main(options(run, out)) == 0
    return out


def test_folders_are_called_as_training_would_number_them_again() -> None:
    def folders(*names: str) -> list[str]:
        return export.ExportSpec("", 0, "ema", 1, 0, None, 1, list(names)).folders(len(names) or 3)

    assert folders("1", "10", "2") == ["1", "10", "2"]  # as text
    assert folders("1", "2", "10") == ["0000-1", "0001-2", "0002-10"]
    assert folders("a/b", "a_b", "") == ["0000-a_b", "0001-a_b", "0002-"]
    assert folders() == ["0000", "0001", "0002"]
    for names in (folders("1", "2", "10"), folders("b", "a"), folders("a", "a")):
        assert names == sorted(set(names))


def test_one_file_holds_images_and_labels_in_order(whole: Path) -> None:
    images, labels = contents(whole)
    assert (images.shape, images.dtype) == ((NUM, 8, 8, 3), np.uint8)
    assert labels.tolist() == [i % 10 for i in range(NUM)]
    with np.load(whole) as archive:
        assert archive["class_names"].tolist() == [str(c) for c in range(10)]
    assert [path.name for path in whole.parent.iterdir()] == [whole.name]


def test_killed_and_called_again_it_goes_on(
    run: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write, written = tmp_path / "samples.npz", export._write_part, []

    def dies(folder: Path, first: int, *arrays: np.ndarray) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(first)
        write(folder, first, *arrays)

    monkeypatch.setattr(export, "_write_part", dies)
    assert sample_main(options(run, out)) == 1
    assert not out.exists()
    monkeypatch.setattr(
        export, "_write_part", lambda folder, first, *a: (written.append(first), write(folder, first, *a))
    )
    assert sample_main(options(run, out)) == 0
    assert written == [0, 64, 128]
    assert all((a == b).all() for a, b in zip(contents(out), contents(whole), strict=True))
    assert sample_main(options(run, out)) == 0  # it is there already


@pytest.mark.slow
def test_two_processes_make_the_same_file(run: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples.npz"
    two_processes(["biggan.sample", *options(run, out)])
    assert out.read_bytes() == whole.read_bytes()


def test_a_folder_of_png_files_that_training_reads(run: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "folder"
    assert sample_main(options(run, out)) == 0
    images, labels = contents(whole)
    for i in (0, 17, 149):
        assert (np.asarray(Image.open(out / str(labels[i]) / f"{i:08d}.png")) == images[i]).all()
    gone = out / "7" / "00000017.png"
    gone.unlink()
    assert sample_main(options(run, out)) == 0
    assert (np.asarray(Image.open(gone)) == images[17]).all()
    train, val, classes = open_folder(out)
    assert (len(train.labels.first), val, len(classes)) == (NUM, None, 10)


def test_samples_made_otherwise_are_not_mixed(
    run: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert sample_main(options(run, whole, "--seed", "1")) == 2
    assert "with other settings (seed: 0 there, 1 now)" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "file.txt").write_text("mine")
    assert sample_main(options(run, tmp_path / "own")) == 2
    assert "is not empty" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "other.npz").write_text("mine")
    assert sample_main(options(run, tmp_path / "other.npz")) == 2
    assert "was not made by biggan-sample" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--num", "0"], "--num is 0, expected at least 1"),
        (["--truncation", "0"], "truncation threshold is 0.0"),
        (["--classes", "1"], "Omit --classes"),
        (["--out", "x.tar"], "--out is x.tar: with --num, expected a name that ends in .npz"),
    ],
)
def test_bad_options(run: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert sample_main(options(run, tmp_path / "x.npz", *more)) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x.npz").exists()
