"""HDF5 files as BigGAN-PyTorch's make_hdf5.py writes them, and what is wrong with others."""

from __future__ import annotations

import builtins
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from biggan.cli.data import data_main
from biggan.data.decode import square
from biggan.data.prepare.job import open_any
from biggan.errors import UserError

DRAWN = np.random.default_rng(0).integers(0, 256, (25, 3, 8, 8), dtype=np.uint8)
LABELS = np.arange(25) % 4


def write(path: Path, *, compression: str | None = "lzf", **others: Any) -> Path:
    """As make_hdf5.py: empty resizable datasets in chunks, which then grow batch by batch."""
    with h5py.File(path, "w") as file:
        made = {"compression": compression} if compression else {}
        imgs = file.create_dataset("imgs", (10, 3, 8, 8), "uint8", maxshape=(25, 3, 8, 8), chunks=(10, 3, 8, 8), **made)
        labels = file.create_dataset("labels", (10,), "int64", maxshape=(25,), chunks=(10,), **made)
        for start in (0, 10, 20):
            stop = min(start + 10, 25)
            imgs.resize(stop, axis=0)
            labels.resize(stop, axis=0)
            imgs[start:stop], labels[start:stop] = DRAWN[start:stop], LABELS[start:stop]
        for name, values in others.items():
            file[name] = values
    return path


@pytest.mark.parametrize("compression", ["lzf", "gzip", None])
@pytest.mark.parametrize("resolution", [8, 4])
def test_a_file_of_make_hdf5_is_packed_to_its_pixels(compression: str | None, resolution: int, tmp_path: Path) -> None:
    path, out = write(tmp_path / "I8.hdf5", compression=compression), tmp_path / "out"
    options = ["--resolution", str(resolution), "--workers", "2", "--out", str(out)]
    assert data_main(["prepare", str(path), *options]) == 0
    expected = np.stack([square(image.transpose(1, 2, 0), resolution) for image in DRAWN])
    assert np.array_equal(np.load(out / "images.npy"), expected)
    assert np.array_equal(np.load(out / "labels.npy"), LABELS)


def test_inspect_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder/I8.h5")
    for path in (tmp_path / "folder", tmp_path / "folder/I8.h5"):
        assert data_main(["inspect", str(path)]) == 0
        said = capsys.readouterr().out
        assert "an HDF5 file, 4 classes" in said
        assert "8 x 8 (25)" in said
        assert "note:" not in said


def test_images_are_read_in_any_order_and_sent_to_other_processes(tmp_path: Path) -> None:
    train, val, classes = open_any(write(tmp_path / "a.h5"), 8)
    assert (len(train), val, classes) == (25, None, ("0", "1", "2", "3"))
    for order in ([24, 0, 11, 3], [9, 10]):
        assert np.array_equal(train.pixels(np.array(order)), DRAWN[order].transpose(0, 2, 3, 1))
    assert np.array_equal(pickle.loads(pickle.dumps(train)).pixels([7]), train.pixels([7]))


def test_other_names_and_layouts(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["images"] = DRAWN.transpose(0, 2, 3, 1)  # not in chunks, channels last, no labels
    train, _, classes = open_any(tmp_path / "b.h5", 8)
    assert classes == ("images",)
    assert np.array_equal(train.pixels([20])[0], DRAWN[20].transpose(1, 2, 0))


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "torn.h5").write_bytes(write(tmp_path / "a.h5").read_bytes()[:700])
    with h5py.File(tmp_path / "groups.h5", "w") as file:
        file["model/weight"] = np.zeros(3)
    with h5py.File(tmp_path / "floats.h5", "w") as file:
        file["imgs"] = DRAWN / 255
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["imgs"] = DRAWN.reshape(25, -1)
    with h5py.File(tmp_path / "short.h5", "w") as file:
        file["imgs"], file["labels"] = DRAWN, LABELS[:20]
    (tmp_path / "no.h5").write_bytes(b"hello")
    for name, message in {
        "torn": "is no whole HDF5 file",
        "no": "is no whole HDF5 file",
        "groups": r"holds model\. Expected `imgs`",
        "floats": "holds float64, expected uint8",
        "flat": r"of shape \(25, 192\), expected",
        "short": "expected 25 whole numbers",
    }.items():
        with pytest.raises(UserError, match=message):
            open_any(tmp_path / f"{name}.h5", 8)


def test_damaged_chunks_are_broken_images(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write(tmp_path / "a.h5", compression="gzip")
    with h5py.File(path) as file:
        chunk = file["imgs"].id.get_chunk_info(2)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + 40] = b"\xff" * 40
    path.write_bytes(data)
    options = ["prepare", str(path), "--resolution", "8", "--out", str(tmp_path / "out"), "--workers", "1"]
    assert data_main(options) == 2
    assert "image 20 of" in " ".join(capsys.readouterr().err.split())
    assert data_main([*options, "--skip-broken"]) == 0
    assert np.array_equal(np.load(tmp_path / "out/images.npy"), DRAWN[:20].transpose(0, 2, 3, 1))


def test_without_h5py_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = write(tmp_path / "a.h5"), builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="pip install h5py"):
        open_any(path, 8)
