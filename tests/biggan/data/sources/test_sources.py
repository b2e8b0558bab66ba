"""Folders, parquet files and prepared data as the trainer sees them: contents, splits, bits, errors."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pictures import configuration, encode, pack, picture, write_folder, write_parquet

from biggan.config import Config
from biggan.data.decode import square
from biggan.data.images import Position, Source
from biggan.data.loader import training_batches
from biggan.data.sources.opening import open_data, open_source
from biggan.errors import UserError


def first_batches(config: Config, count: int = 8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(islice(training_batches(config, open_source(config), 0), count))


def assert_same(one: list[tuple[torch.Tensor, torch.Tensor]], other: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert a[0].equal(b[0])
        assert a[1].equal(b[1])


def assert_same_source(one: Source, other: Source) -> None:
    assert one.classes == other.classes
    for a, b in ((one.train, other.train), (one.val, other.val)):
        assert np.array_equal(a.pixels(slice(None)), b.pixels(slice(None)))
        assert [x.tolist() for x in a.all_labels.flat()] == [x.tolist() for x in b.all_labels.flat()]


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Parquet with several labels an image, train and test."""
    labels = [[0, 2], [1], [2], [3, 1, 0], [2, 0], [1, 2], [4]]
    write_parquet(tmp_path / "lists" / "data" / "train-00000-of-00002.parquet", labels, names=list("abcde"))
    write_parquet(
        tmp_path / "lists" / "data" / "train-00001-of-00002.parquet", labels[::-1], names=list("abcde"), seed=50
    )
    write_parquet(tmp_path / "lists" / "data" / "test-00000-of-00001.parquet", labels[:5], names=list("abcde"), seed=99)
    return tmp_path / "lists"


def test_a_folder_by_class_with_a_held_out_part(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos", {"cat": 6, "ant": 12, "bee": 4})
    (root / ".DS_Store").write_bytes(b"x")
    (root / "ant" / ".hidden").write_bytes(b"x")
    source = open_source(configuration(root, 3))
    assert source.classes == ("ant", "bee", "cat")
    train, val = source.train, source.val
    assert len(train) + len(val) == 22
    assert (np.bincount(val.labels) >= 1).all()
    assert len(val) < 7
    everything = np.concatenate([train.pixels(slice(None)), val.pixels(slice(None))])
    # Class number 1000 * c + i in the order written: cat, ant, bee.
    expected = [
        square(picture(1000 * c + i, 9 + (1000 * c + i) % 5, 8 + (1000 * c + i) % 7), 8).tobytes()
        for c, count in enumerate((6, 12, 4))
        for i in range(count)
    ]
    assert sorted(image.tobytes() for image in everything) == sorted(expected)
    other_seed = dataclasses.replace(configuration(root, 3), seed=7)
    assert_same_source(source, open_source(other_seed))


def test_a_folder_with_splits_of_its_own(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    write_folder(root / "train", {"cat": 3, "ant": 2})
    write_folder(root / "val", {"cat": 1}, seed=77)
    source = open_source(configuration(root, 2, source="folder"))
    assert (len(source.train), len(source.val)) == (5, 1)
    assert source.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert source.val.labels.tolist() == [1]


def test_parquet_with_names_splits_and_lists(lists: Path) -> None:
    source = open_source(configuration(lists, 5))
    assert source.classes == tuple("abcde")
    assert (len(source.train), len(source.val)) == (14, 5)
    assert source.train.all_labels.of(3).tolist() == [3, 1, 0]
    assert source.train.labels[:4].tolist() == [0, 1, 2, 3]
    assert np.array_equal(source.train.pixels([0])[0], square(picture(0), 8))
    assert np.array_equal(source.train.pixels([13])[0], square(picture(56), 8))
    assert np.array_equal(source.val.pixels([4])[0], square(picture(103), 8))


def test_parquet_without_names_counts_its_classes(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "few.parquet", [0, 3, 0, 3, 3, 1])
    source = open_source(configuration(path, 4))
    assert source.classes == ("0", "1", "2", "3")
    assert len(source.train) + len(source.val) == 6


def test_parquet_with_plain_bytes_and_other_names(tmp_path: Path) -> None:
    blobs = [encode(picture(i)) for i in range(4)]
    table = pa.table(
        {"id": [9, 9, 9, 9], "img": pa.array(blobs, pa.binary()), "labels": pa.array([1, 0, 1, 0], pa.uint8())}
    )
    pq.write_table(table, tmp_path / "all.parquet")
    train, val, classes = open_data("auto", str(tmp_path / "all.parquet"), 8)
    assert (len(train), val, classes) == (4, None, ("0", "1"))
    assert train.labels.tolist() == [1, 0, 1, 0]
    assert np.array_equal(train.pixels([2])[0], square(picture(2), 8))
    huge = table.set_column(2, "labels", pa.array([0, 1, 2**63, 0], pa.uint64()))
    pq.write_table(huge, tmp_path / "all.parquet")
    with pytest.raises(UserError, match=r"row 2 of .* has the label 9223372036854775808, out of range"):
        open_data("auto", str(tmp_path / "all.parquet"), 8)
    pq.write_table(table.rename_columns(["id", "photo", "labels"]), tmp_path / "all.parquet")
    with pytest.raises(UserError, match=r"has the columns id: int64, photo: binary, labels: uint8. Expected `image`"):
        open_data("auto", str(tmp_path / "all.parquet"), 8)


def test_validation_is_preferred_to_test_whose_labels_may_be_secret(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", [0, 1, 1], names=["a", "b"])
    write_parquet(tmp_path / "validation-0.parquet", [1, 0], names=["a", "b"])
    write_parquet(tmp_path / "test-0.parquet", [-1, -1], names=["a", "b"])
    assert len(open_source(configuration(tmp_path, 2)).val) == 2


def test_a_parquet_cache_too_small_for_two_groups_gives_the_same(lists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = first_batches(configuration(lists, 5))
    monkeypatch.setattr("biggan.data.sources.parquet.CACHE_BYTES", 1)
    assert_same(expected, first_batches(configuration(lists, 5)))
    source = open_source(configuration(lists, 5))
    source.train.pixels(slice(None))
    assert len(source.train.pictures._cache) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_bit(lists: Path, workers: int) -> None:
    config = configuration(lists, 5, flip=True)
    more = dataclasses.replace(config, data=dataclasses.replace(config.data, workers=workers))
    assert_same(first_batches(config), first_batches(more))


def test_packed_and_unpacked_give_the_same_bits(lists: Path, tmp_path: Path) -> None:
    packed = pack(lists, tmp_path / "packed")
    for options in ({}, {"flip": True}, {"top_classes": 3, "flip": True}):
        classes = options.get("top_classes", 5)
        here, there = configuration(lists, classes, **options), configuration(packed, classes, **options)
        assert_same_source(open_source(here), open_source(there))
        assert_same(first_batches(here), first_batches(there))
    kept = pack(lists, tmp_path / "kept", top_classes=3)
    assert_same(first_batches(configuration(lists, 3, top_classes=3)), first_batches(configuration(kept, 3)))


def test_a_packed_folder_without_splits_holds_out_the_same_images(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos", {"cat": 9, "ant": 12})
    flat = pack(root, tmp_path / "flat")
    assert sorted(path.name for path in flat.iterdir()) == ["images.npy", "labels.npy", "manifest.json", "origins.npy"]
    images, labels = np.load(flat / "images.npy"), np.load(flat / "labels.npy")
    assert (images.shape, images.dtype, labels.dtype) == ((21, 8, 8, 3), np.uint8, np.int64)
    assert labels.tolist() == [0] * 12 + [1] * 9
    split = pack(root, tmp_path / "split", val_fraction=0.25)
    assert sorted(path.name for path in split.iterdir()) == ["manifest.json", "train", "val"]
    expected = open_source(configuration(root, 2, val_fraction=0.25))
    assert_same_source(expected, open_source(configuration(flat, 2, val_fraction=0.25)))
    assert_same_source(expected, open_source(configuration(split, 2)))
    # A preset that names another source takes prepared data too.
    assert_same_source(expected, open_source(configuration(split, 2, source="parquet")))


def test_packed_data_is_not_copied_to_workers_that_are_not_forked(lists: Path, tmp_path: Path) -> None:
    packed = open_source(configuration(pack(lists, tmp_path / "packed"), 5)).train
    sent = pickle.dumps(packed)
    assert b"memmap" not in sent
    assert np.array_equal(pickle.loads(sent).pixels([1, 0]), packed.pixels([1, 0]))
    rows = open_source(configuration(lists, 5)).train
    rows.pixels([0])
    assert np.array_equal(pickle.loads(pickle.dumps(rows)).pixels([1, 0]), rows.pixels([1, 0]))


def test_batches_begin_anywhere(lists: Path) -> None:
    config = configuration(lists, 5, flip=True)
    later = list(islice(training_batches(config, open_source(config), 5), 3))
    assert_same(first_batches(config)[5:], later)


def test_train_per_class_and_digits_options(tmp_path: Path) -> None:
    few = open_source(configuration(None, 10, source="digits", train_per_class=3))
    assert np.bincount(few.train.labels).tolist() == [3] * 10
    whole = open_source(configuration(None, 10, source="digits"))
    assert (len(whole.train), len(whole.val)) == (1402, 395)
    top = open_source(configuration(None, 4, source="digits", top_classes=4, flip=True))
    assert len(top.classes) == 4
    assert set(top.train.labels) == set(top.val.labels) == {0, 1, 2, 3}
    assert top.train.flip
    assert not top.val.flip
    with pytest.raises(UserError, match="train_per_class is 9999"):
        open_source(configuration(None, 10, source="digits", train_per_class=9999))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_when_it_is_drawn(tmp_path: Path, workers: int) -> None:
    root = write_folder(tmp_path / "photos", {"cat": 3, "ant": 3})
    for path in root.glob("cat/*.png"):
        path.write_bytes(path.read_bytes()[:60])
    config = configuration(root, 2, workers=workers)
    with pytest.raises(UserError, match=r"^\S*cat/00\d\.png is broken: .*--skip-broken") as caught:
        first_batches(config)
    assert "Traceback" not in str(caught.value)


def test_a_file_that_is_gone_and_a_row_without_bytes(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos", {"cat": 3})
    source = open_source(configuration(root, 1))
    shutil.rmtree(root / "cat")
    with pytest.raises(UserError, match=r"cat/00\d.png is broken: cannot be read: No such file"):
        source.train.pixels([0])
    blobs = [encode(picture(0)), None, encode(picture(1)), encode(picture(2))]
    write_parquet(tmp_path / "rows" / "train.parquet", [0, 0, 0, 0], blobs=blobs)
    write_parquet(tmp_path / "rows" / "test.parquet", [0])
    with pytest.raises(UserError, match=r"row 1 of \S*train.parquet \(1.png\) is broken: the row has no image bytes"):
        open_source(configuration(tmp_path / "rows", 1)).train.pixels([1])


def test_what_is_wrong_with_a_path_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "cat").mkdir(parents=True)
    write_folder(tmp_path / "extra" / "train", {"cat": 2})
    write_folder(tmp_path / "extra" / "val", {"dog": 2})
    write_parquet(tmp_path / "rows" / "train.parquet", [0, 0])
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "train.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "file.txt").write_text("x")
    for source, path, message in [
        ("parquet", None, "data.path is not set. Give --data.path"),
        ("auto", "nowhere", "which does not exist"),
        ("folder", "empty", "has no sub-folders"),
        ("folder", "hollow", "has no images"),
        ("folder", "extra", "classes that the training images lack: dog"),
        ("folder", "rows", "Give --data.source parquet"),
        ("folder", "file.txt", "expected a folder"),
        ("parquet", "empty", "holds no .parquet file"),
        ("parquet", "torn", "cannot read .* as parquet"),
        ("packed", "empty", "holds no prepared data"),
        ("digits", "empty", "digits, which has no files"),
        ("foldr", "empty", "did you mean 'folder'"),
    ]:
        with pytest.raises(UserError, match=message):
            open_source(configuration(None if path is None else tmp_path / path, 1, source=source))
    with pytest.raises(UserError, match=r"has 1 class, and model.classes is 5. Give --model.classes 1"):
        open_source(configuration(tmp_path / "rows", 5))


def test_labels_out_of_range_are_named_by_row(tmp_path: Path) -> None:
    for labels, names, message in [
        ([0, 1, 2], ["a", "b"], "row 2 of .* has the label 2, out of range: expected 0 to 1"),
        ([0, -1], None, "row 1 of .* has the label -1, out of range: expected 0 or more"),
        ([0, None], None, "row 1 of .* has the label None"),
        ([[0], [1, 7]], ["a", "b"], "row 1 of .* has the label 7"),
        ([[0], []], ["a", "b"], "row 1 of .* has an empty list"),
        ([0, 10**12], None, "expected class numbers below"),
    ]:
        path = write_parquet(tmp_path / "labels.parquet", labels, names=names)
        with pytest.raises(UserError, match=message):
            open_source(configuration(path, 2))


def test_prepared_data_of_another_resolution_or_torn(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos", {"cat": 9, "ant": 12})

    def damaged(name: str, resolution: int = 8) -> Path:
        return pack(root, tmp_path / name, resolution)

    other = damaged("other", 16)
    short = damaged("short")
    (short / "images.npy").write_bytes((short / "images.npy").read_bytes()[:-100])
    labels = damaged("labels")
    np.save(labels / "labels.npy", np.full(21, 2))
    fewer = damaged("fewer")
    np.save(fewer / "labels.npy", np.zeros(20, np.int64))
    bare = damaged("bare")
    (bare / "manifest.json").unlink()
    cut = damaged("cut")
    (cut / "manifest.json").write_text((cut / "manifest.json").read_text()[:50])
    missing = damaged("missing")
    (missing / "labels.npy").unlink()
    nobody = damaged("nobody")
    (nobody / "origins.npy").unlink()
    newer = damaged("newer")
    facts = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps(facts | {"format": 99}))
    for path, message in [
        (other, "prepared at resolution 16, but model.resolution is 8"),
        (short, "images.npy is torn"),
        (labels, "labels from 2 to 2, out of range: expected 0 to 1"),
        (fewer, "labels.npy holds"),
        (bare, "no manifest.json, so it is incomplete"),
        (cut, "is torn or not a manifest"),
        (missing, "labels.npy is missing"),
        (nobody, "origins.npy is missing"),
        (newer, "is of format 99"),
    ]:
        with pytest.raises(UserError, match=message):
            open_source(configuration(path, 2))


def test_prepared_data_without_what_its_manifest_lists_or_with_half_a_manifest(lists: Path, tmp_path: Path) -> None:
    path = pack(lists, tmp_path / "packed")
    (path / "train" / "label_lists.npz").rename(tmp_path / "lists.npz")
    with pytest.raises(UserError, match=r"train/label_lists.npz is missing. Run biggan-data prepare again"):
        open_source(configuration(path, 5))
    (tmp_path / "lists.npz").rename(path / "train" / "label_lists.npz")
    facts = json.loads((path / "manifest.json").read_text())
    splits = facts["splits"]
    for change in (
        {"splits": {}},
        {"splits": {"val": splits["val"]}},
        {"splits": {"train": {}, "val": splits["val"]}},
        {"splits": {"train": splits["train"] | {"images": "7"}, "val": splits["val"]}},
        {"splits": [1]},
        {"classes": None},
        {"identity": None},
    ):
        (path / "manifest.json").write_text(json.dumps(facts | change))
        with pytest.raises(UserError, match="is torn or not a manifest"):
            open_source(configuration(path, 5))
    (path / "manifest.json").write_text(json.dumps(facts))
    open_source(configuration(path, 5))


def test_one_image_alone(lists: Path) -> None:
    image, label = open_source(configuration(lists, 5)).train[Position(1, 0)]
    assert (image.shape, image.dtype, label.item()) == ((3, 8, 8), torch.float32, 1)
    assert -1 <= image.min() < image.max() <= 1
