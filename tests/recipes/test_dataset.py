"""A dataset of a Python library, packed and trained on: `biggan.data.from_dataset`."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY

import biggan
from biggan.cli.train import train_main
from biggan.data import from_dataset
from biggan.data.decode import square
from biggan.data.sources.opening import open_data
from biggan.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 12, 12, 3), dtype=np.uint8)
LABELS = [n % 3 for n in range(24)]
EXPECTED = np.stack([square(one, 8) for one in PIXELS])


class Photos(torch.utils.data.Dataset):
    """As torchvision's data sets: pairs of an image and a class number; `classes`."""

    classes = ("ant", "bee", "cat")

    def __init__(self, count: int = 24) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(PIXELS[index]), LABELS[index]


def test_a_dataset_is_packed_and_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = from_dataset(Photos(), tmp_path / "packed", resolution=8)
    said = capsys.readouterr().out
    assert "24 images at 8 x 8, 3 classes" in said
    assert f"biggan-train --data.path {out} --model.resolution 8" in said
    train, val, classes = open_data("packed", str(out), 8)
    assert (val, classes, train.labels.tolist()) == (None, ("ant", "bee", "cat"), LABELS)
    assert np.array_equal(train.pixels(slice(None)), EXPECTED)
    line = ["--data.source=packed", f"--data.path={out}", "--model.classes=3", *TINY, "--quiet"]
    assert train_main([*line, "--steps=1", "--out", str(tmp_path / "run")]) == 0
    before = (out / "images.npy").stat().st_mtime_ns
    from_dataset(Photos(), out, resolution=8)
    assert "is already prepared" in capsys.readouterr().out
    assert (out / "images.npy").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="was prepared from other data"):
        from_dataset(Photos(20), out, resolution=8)


Pair = namedtuple("Pair", "picture kind")


@pytest.mark.parametrize(
    "item",
    [
        lambda n: (PIXELS[n], LABELS[n]),
        lambda n: (Image.fromarray(PIXELS[n]), np.int64(LABELS[n])),
        lambda n: (torch.from_numpy(PIXELS[n]).permute(2, 0, 1), torch.tensor(LABELS[n])),
        lambda n: (torch.from_numpy(PIXELS[n]).permute(2, 0, 1).float() / 255, torch.tensor([LABELS[n]])),
        lambda n: (PIXELS[n].astype(np.float32) / 255, float(LABELS[n])),
        lambda n: {"image": Image.fromarray(PIXELS[n]), "label": LABELS[n], "caption": "x"},
        lambda n: {"img": PIXELS[n].tolist() and PIXELS[n], "fine_label": LABELS[n]},
        lambda n: Pair(PIXELS[n], LABELS[n]),
        lambda n: [PIXELS[n], LABELS[n], "more"],
    ],
)
def test_every_usual_form_of_an_item(item: Any, tmp_path: Path) -> None:
    items = [item(n) for n in range(24)]  # a list is a dataset too
    train, _, classes = open_data("packed", str(from_dataset(items, tmp_path / "p", resolution=8, quiet=True)), 8)
    assert (train.labels.tolist(), classes) == (LABELS, ("0", "1", "2"))
    assert np.array_equal(train.pixels(slice(None)), EXPECTED)


def test_floats_of_another_range_are_refused_and_read_where_it_is_given(tmp_path: Path) -> None:
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 127.5 - 1
    items = list(zip(images, LABELS, strict=True))
    with pytest.raises(UserError, match=r"item 0 .* values from -1 to .*value_range=\(-1, 1\)"):
        from_dataset(items, tmp_path / "p", resolution=8)
    out = from_dataset(items, tmp_path / "p", resolution=8, value_range=(-1, 1), quiet=True)
    assert np.array_equal(np.load(out / "images.npy"), EXPECTED)
    from_dataset([(PIXELS[0] / 1.0, 0)] * 2, tmp_path / "q", resolution=8, value_range=(0, 255), quiet=True)
    assert np.array_equal(np.load(tmp_path / "q/images.npy")[1], EXPECTED[0])


def test_names_splits_text_and_no_labels(tmp_path: Path) -> None:
    features = {"kind": type("ClassLabel", (), {"names": ["x", "y", "z"]})()}
    items = ({"photo": p, "kind": n} for p, n in zip(PIXELS, LABELS, strict=True))
    hub = type("Hub", (list,), {"features": features})(items)
    out = from_dataset(hub, tmp_path / "a", resolution=8, image="photo", label="kind", val=hub[:5], quiet=True)
    train, val, classes = open_data("packed", str(out), 8)
    assert val is not None
    assert (len(train), len(val), classes) == (24, 5, ("x", "y", "z"))
    text = [(p, "abc"[n]) for p, n in zip(PIXELS, LABELS, strict=True)]
    out = from_dataset(text, tmp_path / "b", resolution=8, val_fraction=0.25, quiet=True)
    assert json.loads((out / "manifest.json").read_text())["classes"] == ["a", "b", "c"]
    assert sum(len(np.load(out / split / "labels.npy")) for split in ("train", "val")) == 24
    out = from_dataset(list(PIXELS), tmp_path / "c", resolution=8, quiet=True)
    assert open_data("packed", str(out), 8)[2] == ("images",)
    subset = torch.utils.data.Subset(Photos(), range(6))
    out = from_dataset(subset, tmp_path / "d", resolution=8, quiet=True)
    assert open_data("packed", str(out), 8)[2] == ("ant", "bee", "cat")
    out = from_dataset(subset, tmp_path / "e", resolution=8, classes=["p", "q", "r"], quiet=True)
    assert open_data("packed", str(out), 8)[2] == ("p", "q", "r")


class Jittered(Photos):
    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        noise = torch.randint(0, 256, (12, 12, 3), dtype=torch.uint8).numpy()
        return Image.fromarray(noise), LABELS[index]


class Failing(Photos):
    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index == 7:
            raise FileNotFoundError("7.png")
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (Jittered(), {}, "item 0 .* is another image when it is read again.*without augmentation"),
        (Failing(), {}, r"item 7 of the dataset cannot be read \(FileNotFoundError: 7\.png\)"),
        ([], {}, "has no items"),
        (iter([1]), {}, "has no length"),
        ({"train": [1], "test": [2]}, {}, "a mapping of train, test. Give one of these"),
        ([(PIXELS[0], -1)], {}, "item 0 .* has the label -1"),
        ([(PIXELS[0], 0.5)], {}, "has a label of type float"),
        ([(PIXELS[0], [1, 2])], {}, "has a label of type list"),
        ([(PIXELS[0], 0), (PIXELS[1], "a")], {}, r"of different kinds \(int, str\)"),
        ([(PIXELS[0].astype(np.int64), 0)], {}, "pixels of type int64"),
        ([(PIXELS[0].ravel(), 0)], {}, r"is of shape \(432,\)"),
        ([(np.full((4, 4, 3), np.nan), 0)], {}, "has values from nan"),
        ([(b"no image", 0)], {}, "item 0 .* is broken: not an image"),
        ([{"photo": 1}], {}, r"has \['photo'\], and no image"),
        (Photos(), {"classes": ["a"]}, "go up to 2, and there are 1 class names"),
        (Photos(), {"val": Photos(), "val_fraction": 0.1}, "Omit one"),
        (Photos(), {"val_fraction": 0.9}, "expected a share"),
        (Photos(), {"resolution": 0}, "expected at least 1"),
    ],
)
def test_what_cannot_be_packed_is_said_and_leaves_nothing(
    dataset: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        from_dataset(dataset, tmp_path / "p", **{"resolution": 8, "quiet": True, **options})
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("biggan.data.prepare.job.CHUNK_BYTES", 3 * 8 * 8 * 5)
    read: list[int] = []

    class Interrupted(Photos):
        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            read.append(index)
            if len(read) == 24 + 12:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    with pytest.raises(KeyboardInterrupt):
        from_dataset(Interrupted(), tmp_path / "p", resolution=8, quiet=True)
    assert not (tmp_path / "p").exists()
    read.clear()
    monkeypatch.setattr(Interrupted, "__getitem__", lambda self, n: read.append(n) or Photos.__getitem__(self, n))
    out = from_dataset(Interrupted(), tmp_path / "p", resolution=8, quiet=True)
    assert read[24:] == list(range(10, 24))  # two chunks of five were done
    assert np.array_equal(np.load(out / "images.npy"), EXPECTED)


def test_biggan_train_takes_the_packed_data_as_it_is(tmp_path: Path) -> None:
    items = [(np.full((20, 20, 3), number, np.uint8), number % 3) for number in range(60)]
    packed = from_dataset(items, tmp_path / "my data", resolution=16, quiet=True)
    small = {"model.ch": 4, "train.batch": 8, "eval.every": 0, "samples.every": 0, "tensorboard.every": 0}
    overrides = {"data.path": str(packed), "steps": 1, "out": str(tmp_path / "run"), **small}
    run = biggan.train("digits", overrides, quiet=True)
    assert (run.config.data.source, run.config.model.classes) == ("auto", 3)
