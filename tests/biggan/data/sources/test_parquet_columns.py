"""Parquet files of other people: columns of other names, labels of every kind, rows that name files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encode, pack, picture
from tiny import TINY

from biggan.cli.options import parse
from biggan.cli.train import train_main
from biggan.config import differences
from biggan.data.decode import square
from biggan.data.images import Images
from biggan.data.notes import notes_of_data
from biggan.data.sources.opening import open_data
from biggan.errors import UserError

BLOBS = [encode(picture(i)) for i in range(6)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, labels: Any, *, image: str = "image", label: str = "label", blobs: list[Any] = BLOBS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({image: pa.array(blobs[: len(labels)], pa.binary()), label: labels}), path)
    return path


def opened(path: Path, **columns: str) -> tuple[Images, Images | None, tuple[str, ...], str]:
    with notes_of_data() as notes:
        train, val, classes = open_data("auto", str(path), 8, columns)
    return train, val, classes, "\n".join(notes)


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (["owl", "cat", "owl", "bee"], ("bee", "cat", "owl"), [2, 1, 2, 0]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ("a", "b"), [1, 0, 1]),
        (pa.array(["b", "a", "b"], pa.large_string()), ("a", "b"), [1, 0, 1]),
        ([True, False, True], ("false", "true"), [1, 0, 1]),
        ([2.0, 0.0, 1.0], ("0", "1", "2"), [2, 0, 1]),
        (pa.array([3, 0], pa.uint8()), ("0", "1", "2", "3"), [3, 0]),
        ([["b", "a"], ["a"]], ("a", "b"), [1, 0]),
        (["B\u00e4r", "Ba\u0308r", "Cat"], ("B\u00e4r", "Cat"), [0, 0, 1]),  # one word, written in two ways
    ],
    ids=["text", "categories", "large", "bool", "floats", "bytes", "lists", "unicode"],
)
def test_labels_of_every_kind(labels: Any, classes: tuple[str, ...], numbers: list[int], tmp_path: Path) -> None:
    train, _, names, said = opened(write(tmp_path / "a.parquet", labels))
    assert (names, train.labels.tolist()) == (classes, numbers)
    assert ("numbered in sorted order" in said) == (classes[0].isalpha() and classes[0] != "false")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.5], r"row 1 of .* has the label 1\.5, expected a whole number"),
        ([0.0, float("nan")], "row 1 of .* has the label nan, expected a whole number"),
        ([0.0, None], "row 1 of .* has the label None, expected a whole number"),
        ([0.0, -1.0], r"row 1 of .* has the label -1\.0, out of range"),
        (["a", None], "row 1 of .* has no label"),
        ([["a"], ["a", None]], "row 1 of .* has no label"),
        (pa.array([1, 2], pa.date32()), r"has labels of type date32.*Choose another column"),
    ],
    ids=["half", "nan", "missing", "negative", "no-text", "no-text-in-a-list", "date"],
)
def test_labels_that_name_no_class_are_refused_by_row(labels: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        opened(write(tmp_path / "a.parquet", labels))


def test_text_is_numbered_over_all_files_together(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", ["dog", "cat", "dog"])
    write(tmp_path / "validation-0.parquet", ["ant", "dog"])
    train, val, classes, said = opened(tmp_path)
    assert classes == ("ant", "cat", "dog")
    assert val is not None
    assert (train.labels.tolist(), val.labels.tolist()) == ([2, 1, 2], [0, 2])
    assert "1 classes have no training image: ant" in said
    write(tmp_path / "validation-0.parquet", [0, 1])
    with pytest.raises(UserError, match="labels are of different kinds"):
        opened(tmp_path)


def test_names_of_the_metadata_are_those_of_the_column_that_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ["cat", "owl"], image="photo", label="species")
    features = {"species": {"_type": "ClassLabel", "names": ["owl", "cat", "emu"]}, "label": {"names": ["x"]}}
    table = pq.read_table(path).append_column("label", pa.array([0, 0]))
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    train, _, classes, said = opened(path, image="photo", label="species")
    assert (classes, train.labels.tolist()) == (("owl", "cat", "emu"), [1, 0])
    assert "1 classes have no training image: emu" in said
    assert opened(path, image="photo")[2] == ("x",)
    pq.write_table(table.set_column(1, "species", pa.array(["cat", "elk"])), path)
    with pytest.raises(UserError, match=r"row 1 of .* has the label 'elk', which is none of the 3 classes"):
        opened(path, image="photo", label="species")


def test_without_a_column_of_labels_all_is_one_class(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ["a cat", "an owl"], label="caption")
    train, _, classes, said = opened(path)
    assert (classes, train.labels.tolist()) == (("images",), [0, 0])
    assert "one class (images). Other columns: caption (--data.columns label=NAME)" in said
    assert opened(path, label="caption")[2] == ("a cat", "an owl")
    train, _, classes, said = opened(write(tmp_path / "b.parquet", [0, 1]), label="")
    assert (classes, train.labels.tolist(), said) == (("images",), [0, 0], "")


def test_columns_that_are_not_there_and_sources_without_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [0, 1], image="photo", label="kind")
    with pytest.raises(UserError, match=r"has no column 'foto'. Its columns are photo: binary, kind: int64"):
        opened(path, image="foto")
    with pytest.raises(UserError, match=r"--data.columns image=NAME,label=NAME"):
        opened(path)
    write(tmp_path / "two/train-0.parquet", [0, 1])
    write(tmp_path / "two/test-0.parquet", [0, 1], label="labels")
    with pytest.raises(UserError, match=r"in the columns image and label, and .* in image and labels"):
        opened(tmp_path / "two")
    (tmp_path / "photos/cat").mkdir(parents=True)
    (tmp_path / "photos/cat/0.png").write_bytes(BLOBS[0])
    with pytest.raises(UserError, match=r"is read as folder. Omit it"):
        opened(tmp_path / "photos", label="x")
    with pytest.raises(UserError, match=r"data.source is digits. Omit it"):
        open_data("digits", None, 8, {"label": "x"})


def test_columns_on_the_command_line_in_yaml_and_in_a_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    expected = {"image": "photo", "label": "kind"}
    (tmp_path / "a.yaml").write_text("data:\n  columns:\n    image: photo\n    label: kind\n")
    for line in (
        ["--data.columns", "image=photo,label=kind"],
        ["--data.columns=image=photo,label=kind"],
        ["--data.columns", "{image: photo, label: kind}"],
        ["--config", str(tmp_path / "a.yaml")],
    ):
        assert parse(line).config().data.columns == expected
    assert parse(["--data.columns", "label="]).config().data.columns == {"label": ""}
    changed = differences(parse([]).config(), parse(["--data.columns", "label=kind"]).config(), numbers_only=True)
    assert changed == {"data.columns": ({}, {"label": "kind"})}
    for wrong, words in (("photo", "expected pairs such as"), ("images=x", "expected image=NAME, label=NAME")):
        assert train_main(["--data.columns", wrong, *TINY]) == 2
        assert words in " ".join(capsys.readouterr().err.split())
    path = write(tmp_path / "a.parquet", [0, 1, 1, 0, 1, 0], image="photo", label="kind")
    line = ["--data.source=parquet", f"--data.path={path}", "--model.classes=2", "--quiet", *TINY]
    run = ["--out", str(tmp_path / "run")]
    assert train_main([*line, *run, "--data.columns", "image=photo,label=kind", "--steps=1"]) == 0
    assert train_main(["--resume", run[1], "--steps=2", "--data.columns", "image=photo,label=", "--quiet"]) == 2
    assert "data.columns: {'image': 'photo', 'label': 'kind'} ->" in " ".join(capsys.readouterr().err.split())
    # Where the images lie is no part of the numbers: packed with these columns, the data is the same.
    packed = pack(path, tmp_path / "packed", columns=expected)
    assert train_main(["--resume", run[1], "--steps=2", f"--data.path={packed}", "--quiet"]) == 0


def rows_with_paths(folder: Path, paths: list[str | None], blobs: list[bytes | None]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": blob, "path": path} for blob, path in zip(blobs, paths, strict=True)]
    table = pa.table({"image": pa.array(rows, STRUCT), "label": pa.array([0, 1] * (len(rows) // 2), pa.int64())})
    pq.write_table(table, folder / "train-0.parquet", row_group_size=2)
    return folder


def test_rows_without_bytes_are_read_from_the_files_that_they_name(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "pictures").mkdir(parents=True)
    for i in (1, 2, 3):
        (root / f"pictures/{i}.png").write_bytes(BLOBS[i])
    paths = ["/elsewhere/0.png", "pictures/1.png", str(root / "pictures/2.png"), "pictures/../pictures/3.png"]
    folder = rows_with_paths(root, paths, [BLOBS[0], None, None, None])
    train, _, _, said = opened(folder)
    for i in range(4):
        assert np.array_equal(train.pixels([i])[0], square(picture(i), 8))
    assert "3 of 4 images are read from the files that their rows name" in said
    before = train.identity()
    os.utime(root / "pictures/3.png", ns=(1, 1))
    assert opened(folder)[0].identity() != before
    (root / "pictures/3.png").unlink()
    with pytest.raises(UserError, match=r"row 3 of .*3\.png\) is broken: the row has no .* its file is not there"):
        opened(folder)[0].pixels([3])
    # A column of text is a column of paths.
    pq.write_table(pa.table({"file": ["1.png", "2.png"], "label": [0, 1]}), root / "pictures/names.parquet")
    train, *_ = opened(root / "pictures", image="file")
    assert np.array_equal(train.pixels([1])[0], square(picture(2), 8))
    pq.write_table(pa.table({"image": ["8.png", "9.png"], "label": [0, 1]}), root / "pictures/names.parquet")
    with pytest.raises(UserError, match="none of these is there"):
        opened(root / "pictures")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "a/../../secret.png", "..", "x\0y"])
def test_no_file_outside_of_the_data_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(BLOBS[0])
    with pytest.raises(UserError, match=r"lies outside of .*Only files in the data's folder are read"):
        opened(rows_with_paths(tmp_path / "set", [name, "0.png"], [None, BLOBS[0]]))
