"""Odd data sets: each is read, packed and trained on, or refused in one paragraph that says what to do."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pictures import encode, picture, write_folder
from PIL import Image
from tiny import TINY

from biggan.cli.data import data_main
from biggan.cli.train import train_main


def photos(root: Path, *names: str, count: int = 4) -> Path:
    return write_folder(root, dict.fromkeys(names or ("ant", "bee"), count))


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def many_modes(root: Path) -> None:
    photos(root)
    for mode, ending in (
        *(("RGB", "jpg"), ("L", "png"), ("RGBA", "png"), ("LA", "png"), ("P", "gif"), ("1", "png"), ("CMYK", "jpg")),
        *(("RGB", "bmp"), ("RGB", "webp"), ("L", "tiff")),
    ):
        Image.fromarray(picture(1)).convert(mode).save(root / "ant" / f"{mode}.{ending}")


def strange_names(root: Path) -> None:
    photos(root, "a b", "ü'\"$x", "-x", "\U0001f600")
    (root / "-x/000.png").rename(root / "-x/line\nbreak.png")
    os.rename(root / "-x/001.png", os.fsencode(root / "-x") + b"/\xff.png")


def strange_sizes(root: Path) -> None:
    photos(root)
    put(root / "ant/pixel.png", encode(picture(0, 1, 1)))
    put(root / "ant/wide.png", encode(picture(0, 3, 2000)))


def links_and_pipes(root: Path) -> None:
    photos(root, "ant")
    photos(root.parent / "elsewhere", "bee")
    (root / "bee").symlink_to(root.parent / "elsewhere/bee")
    (root / "ant/loop").symlink_to(root)
    os.mkfifo(root / "ant/pipe")
    os.mkfifo(root / "ant/pipe.png")


def videos_beside(root: Path) -> None:
    photos(root)
    put(root / "ant/film.mp4", "x")


def a_table_beside(root: Path) -> None:
    photos(root, "images")
    put(root / "train.csv", "id,label\n0,ant\n")


GOOD: dict[str, tuple[Callable[[Path], object], str]] = {
    "modes": (many_modes, ""),
    "names": (strange_names, ""),
    "sizes": (strange_sizes, ""),
    "links": (links_and_pipes, "pipe.png is left out: it is a pipe"),
    "videos": (videos_beside, "left out 1 files that are no images by their names (1 .mp4)"),
    "table": (a_table_beside, "not read: train.csv (classes are the names of folders)"),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_be_read_is_packed_and_trained_on(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make, note = GOOD[name]
    make(tmp_path / "set")
    assert data_main(["inspect", str(tmp_path / "set")]) == 0
    said = capsys.readouterr().out
    assert "broken: 0" in said
    assert note in said
    packed = ["--resolution", "8", "--workers", "1", "--out", str(tmp_path / "packed")]
    assert data_main(["prepare", str(tmp_path / "set"), *packed]) == 0
    for path in ("set", "packed"):
        line = [f"--data.path={tmp_path / path}", "--steps=1", "--quiet", "--monitor=none", *TINY]
        assert train_main([*line, "--out", str(tmp_path / f"run-{path}")]) == 0


def only_heic(root: Path) -> None:
    put(root / "ant/0.heic", "x")
    put(root / "ant/1.heic", "x")


def val_is_flat(root: Path) -> None:
    photos(root / "train")
    put(root / "val/0.png", encode(picture(0)))


def val_has_more(root: Path) -> None:
    photos(root / "train")
    photos(root / "val", "ant", "cat")


def saved_to_disk(root: Path) -> None:
    root.mkdir()
    table = pa.table({"label": [0]})
    with pa.ipc.new_stream(str(root / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)


def objects(root: Path) -> None:
    root.mkdir()
    pair = np.empty(2, dtype=object)
    pair[:] = [picture(0), picture(1, 5, 5)]
    np.savez(root / "a.npz", images=pair)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda root: root.mkdir(), "holds no images and has no sub-folders. An image folder needs"),
    "text": (lambda root: put(root / "a.txt", "x"), "no sub-folders, but 1 .txt. An image folder needs"),
    "heic": (only_heic, "ant has no images, but 2 .heic. Put its images there"),
    "flat val": (val_is_flat, "Put them into folders of these classes, or move val away"),
    "more in val": (val_has_more, "lack: cat. Expected the same sub-folders in both: move these away"),
    "idx": (
        lambda root: put(root / "train-images-idx3-ubyte", struct.pack(">4I", 2051, 1, 28, 28) + bytes(784)),
        "MNIST's idx files: read them with torchvision.datasets.MNIST, and pack that with biggan.data.from_dataset",
    ),
    "binary cifar": (lambda root: put(root / "data_batch_1.bin", bytes(3073)), "take the python version"),
    "arrow": (saved_to_disk, "pack datasets.load_from_disk(...) with biggan.data.from_dataset"),
    "run": (lambda root: put(root / "run.json", "{}"), "a run directory, no data set"),
    "objects": (objects, "Save images of one size as one array of uint8"),
    "one file": (lambda root: put(root, encode(picture(0))), "is a file, expected a folder with one sub-folder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_what_to_do(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    make, words = REFUSED[name]
    make(tmp_path / "set")
    before = sorted(tmp_path.rglob("*"))
    prepare = ["prepare", str(tmp_path / "set"), "--resolution", "8", "--out", str(tmp_path / "packed")]
    for main, line in ((data_main, ["inspect", str(tmp_path / "set")]), (data_main, prepare)):
        assert main(line) == 2
        assert words in " ".join(capsys.readouterr().err.split())
    assert train_main([f"--data.path={tmp_path / 'set'}", "--out", str(tmp_path / "run"), *TINY]) == 2
    assert ": error: " in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_inspect_of_single_images_gives_a_command_that_trains(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    photos(tmp_path / "set", count=1)
    assert data_main(["inspect", str(tmp_path / "set")]) == 0
    assert "--data.no_validation true\n" in capsys.readouterr().out
