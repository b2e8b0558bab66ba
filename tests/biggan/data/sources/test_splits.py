"""Who is training and who validation: parquet's names, the held-out part, the most common classes, packed or not."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from pictures import configuration, encode, pack, picture, write_folder, write_parquet

from biggan.data.images import Source
from biggan.data.sources.hub_files import by_split
from biggan.data.sources.opening import open_source
from biggan.errors import UserError


def hub(root: Path, *files: str, rows: int = 4) -> Path:
    for seed, file in enumerate(files):
        write_parquet(root / file, [0, 1] * (rows // 2), seed=100 * seed)
    return root


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("plain_text/train/0000.parquet", "plain_text/test/0000.parquet"),
        ("cifar-train.parquet", "cifar-test.parquet"),
        ("training-0.parquet", "testing-0.parquet"),
        ("data/train-00000-of-00001-a09b.parquet", "data/validation-00000-of-00001-17ff.parquet"),
        ("Train/part.0.parquet", "Valid/part.0.parquet"),
        ("test_bed/train.parquet", "test_bed/val.parquet"),
        ("deep/er/my_train_0.parquet", "deep/er/my_dev_0.parquet"),
    ],
)
def test_splits_are_found_in_names_and_folders(tmp_path: Path, train: str, val: str) -> None:
    root = hub(tmp_path / "data", train, val)
    assert by_split(root) == ([root / train], [root / val])
    source = open_source(configuration(root, 2))
    assert (len(source.train), len(source.val)) == (4, 4)


def test_names_without_splits_are_all_training_and_validation_is_preferred(tmp_path: Path) -> None:
    plain = hub(tmp_path / "plain", "pretrained.parquet", "contest/latest.parquet")
    assert by_split(plain) == ([plain / "contest/latest.parquet", plain / "pretrained.parquet"], [])
    three = hub(tmp_path / "three", "train.parquet", "test.parquet", "validation.parquet")
    assert by_split(three)[1] == [three / "validation.parquet"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train-0.parquet", "extra-0.parquet"], r"name their split and others do not: extra-0.parquet beside train-0"),
        (["train_test_split.parquet"], r"contains more than one split: test, train"),
        (["a/test/0.parquet"], r"holds no training split: its files are a/test/0.parquet"),
        (["train-00000-of-00003.parquet"], r"has 1 of 3 train files; missing: train-00001-of-00003, train-00002-of"),
        (["train-00000-of-00001.parquet", "test-00001-of-00002.parquet"], r"missing: test-00000-of-00002"),
        (
            ["train-00000-of-00001.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
            r"two numberings, -of-00001 and -of-00002",
        ),
    ],
)
def test_names_that_cannot_be_told_apart_or_are_not_all_there(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        by_split(hub(tmp_path / "data", *files))


def test_a_shard_named_by_itself_is_taken(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train-00000-of-00003.parquet", [0, 1, 0, 1])
    assert by_split(path) == ([path], [])


def test_files_that_disagree_on_the_classes(tmp_path: Path) -> None:
    for number, names in enumerate((["cat", "dog"], ["dog", "cat"], None)):
        write_parquet(tmp_path / "0" / "train.parquet", [0, 1], names=["cat", "dog"])
        write_parquet(tmp_path / "0" / "test.parquet", [0, 1], names=names)
        if number == 0:
            assert open_source(configuration(tmp_path / "0", 2)).classes == ("cat", "dog")
            continue
        with pytest.raises(UserError, match=r"and \S*test.parquet disagree on the classes: 2 \(cat, dog\)"):
            open_source(configuration(tmp_path / "0", 2))


def members(source: Source) -> tuple[set[bytes], set[bytes]]:
    train, val = ({image.tobytes() for image in images.pixels(slice(None))} for images in (source.train, source.val))
    assert not train & val
    return train, val


def test_leaving_a_broken_image_out_moves_no_other(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos", {"ant": 30, "bee": 30})
    train, val = members(open_source(configuration(root, 2)))
    (root / "ant" / "007.png").write_bytes(b"junk")
    packed = [
        pack(root, tmp_path / "flat", skip_broken=True),
        pack(root, tmp_path / "split", skip_broken=True, val_fraction=0.1),
    ]
    (root / "ant" / "007.png").unlink()
    for path in (root, *packed):
        now_train, now_val = members(open_source(configuration(path, 2)))
        assert now_train <= train
        assert now_val <= val
        assert len(now_train) + len(now_val) == 59


def test_preparing_commutes_with_holding_out_and_keeping_classes(tmp_path: Path) -> None:
    """Several labels an image, where the two orders of doing so give different images."""
    labels = [[0, 2], [1], [2], [3, 1, 0], [2, 0], [1, 2], [4], [4, 0], [3], [1, 4, 2], [0], [2, 3]] * 4
    source = write_parquet(tmp_path / "lists.parquet", labels, names=list("abcde"))
    wanted = open_source(configuration(source, 3, top_classes=3, val_fraction=0.25))
    expected = [
        (images.pixels(slice(None)).tobytes(), [part.tolist() for part in images.all_labels.flat()])
        for images in (wanted.train, wanted.val)
    ]
    done = {"top_classes": 3, "val_fraction": 0.25}
    for number, names in enumerate(itertools.chain.from_iterable(itertools.combinations(done, n) for n in range(3))):
        options = {name: done[name] for name in names}
        path = pack(source, tmp_path / f"packed-{number}", **options)
        found = open_source(configuration(path, 3, top_classes=3, val_fraction=0.25))
        assert found.classes == wanted.classes
        assert expected == [
            (images.pixels(slice(None)).tobytes(), [part.tolist() for part in images.all_labels.flat()])
            for images in (found.train, found.val)
        ]


def test_links_in_a_circle_and_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path / "photos", {"ant": 6, "bee": 6})
    (root / "ant" / "again").symlink_to(root / "ant")
    (root / "ant" / "above").symlink_to(root)
    (root / "ant" / "nowhere.png").symlink_to(root / "gone.png")
    source = open_source(configuration(root, 2))
    assert len(source.train) + len(source.val) == 13
    (root / "ant" / "nowhere.png").unlink()
    assert len(members(open_source(configuration(root, 2)))[0]) < 12

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("biggan.data.sources.walk.os.scandir", refuse)
    with pytest.raises(UserError, match=r"cannot read the folder \S*photos: Permission denied"):
        open_source(configuration(root, 2))


def test_parquet_is_found_at_any_depth(tmp_path: Path) -> None:
    hub(tmp_path / "data", "one/two/three/train.parquet", "one/two/three/test.parquet")
    for source in ("auto", "parquet"):
        assert len(open_source(configuration(tmp_path / "data", 2, source=source)).train) == 4
    with pytest.raises(UserError, match=r"Give --data.source parquet"):
        open_source(configuration(tmp_path / "data", 2, source="folder"))


def test_a_change_that_leaves_sizes_alone_is_seen(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos", {"ant": 6})
    path = write_parquet(tmp_path / "rows.parquet", [0, 0, 0])
    for source, file in ((root, root / "ant" / "000.png"), (path, path)):
        out = tmp_path / f"{source.name}-packed"
        pack(source, out)
        pack(source, out)
        before = file.stat()
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        with pytest.raises(
            UserError, match="prepared from other data or with other options, or its source has changed"
        ):
            pack(source, out)


def test_an_edited_image_does_not_change_sides(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos", {"ant": 30})
    train, val = members(open_source(configuration(root, 1)))
    (root / "ant" / "000.png").write_bytes(encode(picture(999)))
    assert [len(part) for part in members(open_source(configuration(root, 1)))] == [len(train), len(val)]
