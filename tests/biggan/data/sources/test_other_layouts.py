"""Data sets as others keep them: StyleGAN's, numpy's, CIFAR's; folders with junk, and without classes."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biggan.cli.data import data_main
from biggan.data.broken import BrokenImageError
from biggan.data.notes import notes_of_data
from biggan.data.prepare.job import open_any
from biggan.data.sources.opening import open_data
from biggan.errors import UserError


def pixels(count: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def write_images(folder: Path, images: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, one in enumerate(images):
        Image.fromarray(one).save(folder / f"{i:02d}.png")


def opened(path: Path, resolution: int = 16) -> tuple:
    """Training and validation images, classes, and what was said."""
    with notes_of_data() as notes:
        return (*open_any(path, resolution), " ".join(notes))


def stylegan_tree(root: Path, labels: list[int] | None) -> np.ndarray:
    """A tree of StyleGAN's with six images in two folders."""
    images = pixels(6)
    for folder, part in (("00000", images[:3]), ("00001", images[3:])):
        write_images(root / folder, part)
    names = [f"{folder}/{i:02d}.png" for folder in ("00000", "00001") for i in range(3)]
    listed = None if labels is None else [list(pair) for pair in zip(names, labels, strict=True)]
    (root / "dataset.json").write_text(json.dumps({"labels": listed}))
    return images


@pytest.mark.parametrize("top", ["", "set/"])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_labels_of_stylegan_are_those_of_dataset_json(zipped: bool, top: str, tmp_path: Path) -> None:
    images = stylegan_tree(tmp_path / "tree", [2, 0, 1, 2, 2, 0])  # not those of the folders
    path = tmp_path / "tree"
    if zipped:
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted((tmp_path / "tree").rglob("*.*")):
                archive.write(file, f"{top}{file.relative_to(tmp_path / 'tree').as_posix()}")
    train, val, classes, said = opened(path)
    assert (train.labels.tolist(), val, classes, said) == ([2, 0, 1, 2, 2, 0], None, ("0", "1", "2"), "")
    assert np.array_equal(train.pixels(slice(None)), images)
    assert np.array_equal(pickle.loads(pickle.dumps(train)).pixels([3]), images[3:4])  # as a worker is sent it


def test_a_zip_archive_is_packed_by_several_processes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    images = stylegan_tree(tmp_path / "tree", [2, 0, 1, 2, 2, 0])
    (tmp_path / "tree/dataset.json").write_text(json.dumps({"labels": None}))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted((tmp_path / "tree").rglob("*.*")):
            archive.write(file, file.relative_to(tmp_path / "tree").as_posix())
    out = tmp_path / "packed"
    line = ["prepare", str(tmp_path / "set.zip"), "--resolution=16", "--out", str(out), "--workers=2"]
    assert data_main(line) == 0
    assert "note: " in capsys.readouterr().err
    assert np.array_equal(np.load(out / "images.npy"), images)


def test_stylegan_without_labels_is_one_class_and_a_missing_label_is_said(tmp_path: Path) -> None:
    stylegan_tree(tmp_path / "none", None)
    train, _, classes, said = opened(tmp_path / "none")
    assert (classes, set(train.labels)) == (("images",), {0})
    assert "its 6 images are one class" in said
    stylegan_tree(tmp_path / "some", [0, 1, 0, 1, 0, 1])
    write_images(tmp_path / "some/00002", pixels(1))
    with pytest.raises(UserError, match=r"no label for 1 of 7 images, such as 00002/00\.png"):
        opened(tmp_path / "some")


def test_training_on_what_is_packed_first_prints_the_command(tmp_path: Path) -> None:
    stylegan_tree(tmp_path / "tree", [0, 1, 0, 1, 0, 1])
    np.savez(tmp_path / "set.npz", images=pixels(2))
    for name in ("tree", "set.npz"):
        with pytest.raises(UserError, match=rf"biggan-data prepare .*{name} --resolution 16 --out DIR"):
            open_data("auto", str(tmp_path / name), 16)


def test_arrays_of_numpy(tmp_path: Path) -> None:
    images, labels = pixels(4), np.array([1, 0, 2, 1])
    np.savez(tmp_path / "a.npz", images=images, labels=labels, class_names=np.array(["x", "y", "z"]))
    train, val, classes, said = opened(tmp_path / "a.npz")
    assert (train.labels.tolist(), val, classes, said) == (labels.tolist(), None, ("x", "y", "z"), "")
    assert np.array_equal(train.pixels(slice(None)), images)
    medical = {"train_images": images[..., 0], "train_labels": labels[:, None], "test_images": images[:2, ..., 0]}
    np.savez(tmp_path / "m.npz", **medical, test_labels=np.array([[0], [3]]), extra=labels)
    train, val, classes, said = opened(tmp_path / "m.npz")
    assert (len(train), len(val), classes) == (4, 2, ("0", "1", "2", "3"))
    assert np.array_equal(train.pixels([1])[0, ..., 2], images[1, ..., 0])
    assert "its arrays extra are not used" in said
    assert "1 classes have no training image: 3" in said
    np.savez(tmp_path / "c.npz", x_train=images.transpose(0, 3, 1, 2), y_train=np.eye(3)[labels])
    train, _, _, said = opened(tmp_path / "c.npz")
    assert "read as channels, height, width" in said
    assert np.array_equal(train.pixels([2]), images[2:3])
    assert train.labels.tolist() == labels.tolist()
    np.save(tmp_path / "images.npy", images)
    assert "one class" in opened(tmp_path / "images.npy")[3]
    np.save(tmp_path / "labels.npy", labels)
    assert opened(tmp_path / "images.npy")[0].labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros((2, 8, 8, 3), np.float32)}, "holds float32, expected uint8"),
        ({"images": np.zeros((2, 8, 8, 4), np.uint8)}, r"shape \(2, 8, 8, 4\)"),
        ({"images": np.zeros((2, 8, 8), np.uint8), "labels": np.array([0.5, 1])}, "expected 2 whole numbers"),
        ({"images": np.zeros((2, 8, 8), np.uint8), "labels": np.array([0, -1])}, "expected 2 whole numbers"),
        ({"images": np.zeros((2, 8, 8), np.uint8), "labels": np.array([0])}, "expected 2 whole numbers"),
        ({"pictures": np.zeros((2, 8, 8), np.uint8)}, "has the arrays pictures, expected images under one of"),
    ],
)
def test_arrays_that_are_no_images_are_refused(arrays: dict, words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=words):
        opened(tmp_path / "a.npz")


@pytest.mark.parametrize("ten", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_the_batches_of_cifar(ten: bool, protocol: int, tmp_path: Path) -> None:
    images = pixels(6, 32)
    rows = images.transpose(0, 3, 1, 2).reshape(6, -1)
    names = ["cat", "dog"]
    key = b"labels" if ten else b"fine_labels"
    files = {"data_batch_1": slice(0, 2), "data_batch_2": slice(2, 4), "test_batch": slice(4, 6)}
    files = files if ten else {"train": slice(0, 4), "test": slice(4, 6)}
    for name, part in files.items():
        content = {b"data": rows[part], key: [0, 1, 1, 0, 1, 0][part]}
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol))
    meta = {("label_names" if ten else "fine_label_names"): names}
    (tmp_path / ("batches.meta" if ten else "meta")).write_bytes(pickle.dumps(meta, protocol))
    train, val, classes, _ = opened(tmp_path, 32)
    assert (train.labels.tolist(), val.labels.tolist(), classes) == ([0, 1, 1, 0], [1, 0], ("cat", "dog"))
    assert np.array_equal(train.pixels(slice(None)), images[:4])
    assert np.array_equal(val.pixels(slice(None)), images[4:])


def test_a_batch_as_python_2_wrote_it(tmp_path: Path) -> None:
    """Texts and the array's bytes are strings of Python 2, as in the published files."""
    images = pixels(2, 32)
    data = images.transpose(0, 3, 1, 2).tobytes()
    dtype = b"cnumpy\ndtype\nq\x02U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    state = b"(K\x01K\x02M\x00\x0c\x86" + dtype + b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
    content = b"\x80\x02}(U\x04data" + array + state + b"U\x06labels](K\x01K\x00eu."
    (tmp_path / "data_batch_1").write_bytes(content)
    assert pickle.loads(content, encoding="latin1")["data"].tobytes() == data
    train, val, classes, _ = opened(tmp_path, 32)
    assert (train.labels.tolist(), val, classes) == ([1, 0], None, ("0", "1"))
    assert np.array_equal(train.pixels(slice(None)), images)


def test_a_batch_that_would_run_code_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> tuple:
            return (Path.touch, (mark,))

    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UserError, match="no whole batch of CIFAR"):
        opened(tmp_path)
    assert not mark.exists()


def write_shard(path: Path, images: np.ndarray, labels: list[bytes] | None, first: int = 0) -> None:
    with tarfile.open(path, "w") as archive:
        for i, one in enumerate(images):
            picture = io.BytesIO()
            Image.fromarray(one).save(picture, "PNG")
            members = {"png": picture.getvalue(), "json": b"{}"} | ({} if labels is None else {"cls": labels[i]})
            for ending, content in members.items():
                info = tarfile.TarInfo(f"{first + i:06d}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def test_shards_of_webdataset(tmp_path: Path) -> None:
    images = pixels(7)
    write_shard(tmp_path / "set-train-000000.tar", images[:3], [b"1", b"0\n", b"2"])
    write_shard(tmp_path / "set-train-000001.tar", images[3:5], [b"2", b"2"], first=3)
    write_shard(tmp_path / "set-val-000000.tar", images[5:], [b"0", b"1"])
    train, val, classes, said = opened(tmp_path)
    assert (train.labels.tolist(), val.labels.tolist(), classes) == ([1, 0, 2, 2, 2], [0, 1], ("0", "1", "2"))
    assert np.array_equal(train.pixels(slice(None)), images[:5])
    assert np.array_equal(val.pixels(slice(None)), images[5:])
    assert said == ""
    write_shard(tmp_path / "alone.tar", images, None)
    train, val, classes, said = opened(tmp_path / "alone.tar")
    assert (len(train), val, classes) == (7, None, ("images",))
    assert "its 7 images are one class" in said
    write_shard(tmp_path / "text.tar", images[:1], [b"cat"])
    with pytest.raises(UserError, match=r"000000\.cls is b'cat', expected the class's number"):
        opened(tmp_path / "text.tar")
    whole = (tmp_path / "alone.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2 + 100])
    with pytest.raises(UserError, match="no whole, uncompressed tar file"):
        opened(tmp_path / "cut.tar")


def test_junk_in_a_folder_is_left_out_with_a_word(tmp_path: Path) -> None:
    images = pixels(3)
    write_images(tmp_path / "cat", images)
    write_images(tmp_path / "dog", images)
    for place in ("cat/Thumbs.db", "cat/desktop.ini", "dog/00.txt", "dog/captions.json"):
        (tmp_path / place).write_text("x")
    for place in ("@eaDir", "cat/@eaDir/00.png", "__MACOSX/cat", "dog/.ipynb_checkpoints"):
        write_images(tmp_path / place, images)
    write_images(tmp_path, images[:1])  # one image beside the classes
    train, _, classes, said = opened(tmp_path)
    assert (classes, train.labels.tolist()) == (("cat", "dog"), [0, 0, 0, 1, 1, 1])
    assert "left out 4 files that are no images by their names" in said
    for word in ("1 .db", "1 .ini", "1 .txt", "1 .json", "@eaDir is left out", "__MACOSX is left out"):
        assert word in said
    assert "left out 1 images beside the classes' folders" in said


def test_images_without_classes_are_one_class(tmp_path: Path) -> None:
    write_images(tmp_path / "flat", pixels(3))
    train, val, classes, said = opened(tmp_path / "flat")
    assert (len(train), val, classes) == (3, None, ("images",))
    assert "its 3 images are one class (images)" in said
    write_images(tmp_path / "split/train", pixels(3))
    write_images(tmp_path / "split/val", pixels(2))
    write_images(tmp_path / "split/test", pixels(2))
    train, val, classes, said = opened(tmp_path / "split")
    assert (len(train), len(val), classes) == (3, 2, ("images",))
    assert f"{tmp_path}/split/test is not used" in said


def test_a_validation_split_without_training_images_is_no_class(tmp_path: Path) -> None:
    write_images(tmp_path / "a/val/cat", pixels(3))
    with pytest.raises(UserError, match=f"has val and no train folder.*give {tmp_path}/a/val to train on that"):
        opened(tmp_path / "a")
    assert opened(tmp_path / "a/val")[2] == ("cat",)
    write_images(tmp_path / "b/test", pixels(3))
    write_images(tmp_path / "b/control", pixels(3))
    _, _, classes, said = opened(tmp_path / "b")
    assert classes == ("control", "test")
    assert "b/test is a class: there is no train folder beside it" in said


def test_a_name_is_the_same_however_unicode_writes_it(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "B\u00e4r") for form in ("NFC", "NFD"))
    write_images(tmp_path / "a/train" / composed, pixels(3))
    write_images(tmp_path / "a/val" / apart, pixels(2))
    train, val, classes, _ = opened(tmp_path / "a")
    assert (len(train), len(val), classes) == (3, 2, (composed,))
    write_images(tmp_path / "b" / composed, pixels(3))
    write_images(tmp_path / "b" / apart, pixels(2))
    if len(list((tmp_path / "b").iterdir())) == 2:  # not where the file system takes them for one
        train, _, classes, said = opened(tmp_path / "b")
        assert (len(train), len(classes)) == (5, 1)
        assert "are one class" in said


def test_a_folder_of_arrays_is_read_as_its_file(tmp_path: Path) -> None:
    images, folder = pixels(6), tmp_path / "set"
    folder.mkdir()
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", np.arange(6) % 3)
    train, _, classes, said = opened(folder)
    assert (train.labels.tolist(), classes, said) == ([0, 1, 2, 0, 1, 2], ("0", "1", "2"), "")
    assert np.array_equal(train.pixels([4])[0], images[4])
    assert data_main(["prepare", str(folder), "--resolution", "16", "--out", str(tmp_path / "out")]) == 0
    with pytest.raises(UserError, match=f"biggan-data prepare {folder}"):
        open_data("auto", str(folder), 16)
    (tmp_path / "out/manifest.json").unlink()  # packed data that lost its manifest is not taken for arrays
    with pytest.raises(UserError, match=r"no manifest\.json, so it is incomplete"):
        open_data("auto", str(tmp_path / "out"), 16)
    (tmp_path / "zipped").mkdir()
    np.savez(tmp_path / "zipped/all.npz", images=images, labels=np.arange(6) % 3)
    assert opened(tmp_path / "zipped")[2] == ("0", "1", "2")


@pytest.mark.parametrize("damage", [lambda data: data[:200], lambda data: data[:150] + b"?" + data[151:]])
def test_a_damaged_archive_of_arrays_is_said(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, images=pixels(30), labels=np.arange(30))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="cannot be read as numpy's arrays"):
        opened(path)


def test_a_damaged_image_in_an_archive_is_a_broken_one(tmp_path: Path) -> None:
    stylegan_tree(tmp_path / "tree", [0, 1, 0, 1, 0, 1])
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((tmp_path / "tree").rglob("*.*")):
            archive.write(file, file.relative_to(tmp_path / "tree"))
        begin = archive.getinfo("00000/00.png").header_offset
    data = bytearray(path.read_bytes())
    data[begin + 45 : begin + 55] = b"\xff" * 10  # within what deflate wrote
    path.write_bytes(data)
    train, *_ = opened(path)
    with pytest.raises(BrokenImageError, match="damaged in the archive"):
        train.load(0)


def test_labels_out_of_range_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "wild.npz", images=pixels(3), labels=np.array([0, 1, 10**9]))
    with pytest.raises(UserError, match="go up to 1,000,000,000"):
        opened(tmp_path / "wild.npz")
    np.savez(tmp_path / "negative.npz", images=pixels(3), labels=np.array([0, 1, -1]))
    with pytest.raises(UserError, match="has the label -1"):
        opened(tmp_path / "negative.npz")


def test_a_folder_of_nothing_but_an_unread_format(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/train.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(UserError, match=r"numpy\.savez"):
        opened(tmp_path / "set")


@pytest.mark.parametrize("name", ["data.mdb", "set.tar.gz", "set.mat", "set.tfrecord", "set.zip"])
def test_formats_that_are_not_read_are_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("cat/0.png", b"x")
    with pytest.raises(UserError, match=r"export|unpack|Unpack|numpy\.savez"):
        opened(tmp_path / name)


def test_inspect_says_what_is_there_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_images(tmp_path / "set/cat", pixels(3, 40))
    write_images(tmp_path / "set/dog", pixels(2, 20))
    (tmp_path / "set/dog/broken.png").write_bytes(b"not a picture")
    (tmp_path / "set/dog/Thumbs.db").write_bytes(b"x")
    assert data_main(["inspect", str(tmp_path / "set")]) == 0
    said = capsys.readouterr().out
    for word in ("a folder of images by class, 2 classes", "train: 6 images, 3 a class", "0  cat  3", "broken: 1"):
        assert word in said
    assert "sizes: 40 x 40 (3), 20 x 20 (2)" in said
    assert "modes: PNG RGB (5)" in said
    assert "dog/broken.png: not an image" in said
    assert "left out 1 files" in said
    assert f"--data.path {tmp_path}/set --model.resolution 32 --data.on_broken skip\n" in said
    np.savez(tmp_path / "set.npz", images=pixels(4), labels=np.arange(4))
    assert data_main(["inspect", str(tmp_path / "set.npz")]) == 0
    said = capsys.readouterr().out
    assert f"biggan-data prepare {tmp_path}/set.npz --resolution 16 --out set-16" in said
    assert data_main(["inspect", str(tmp_path / "nowhere")]) == 2


def test_inspect_of_broken_images_gives_a_command_that_works_or_none(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_images(tmp_path / "set/cat", pixels(3, 40))
    write_images(tmp_path / "set/dog", pixels(3, 40))
    (tmp_path / "set/dog/00.png").write_bytes(b"not a picture")
    assert data_main(["inspect", str(tmp_path / "set")]) == 0
    assert "--model.resolution 32 --data.on_broken skip\n" in capsys.readouterr().out
    for file in (tmp_path / "set").rglob("*.png"):
        file.write_bytes(b"not a picture")
    assert data_main(["inspect", str(tmp_path / "set")]) == 0
    said = capsys.readouterr().out
    assert "None of these images can be read, so there is nothing to train on." in said
    assert "biggan-train" not in said
