"""Classifiers that do not know the data's classes are told of, when training or an evaluation begins and at the end."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny import TINY
from torch import nn

from biggan.cli.data import data_main
from biggan.cli.evaluate import eval_main
from biggan.cli.train import train_main
from biggan.data.images import ImageArray, Source
from biggan.evaluation.features.quality import _least_share, weak_features
from biggan.evaluation.features.registry import FeatureNetwork


class Brightness(nn.Module):
    """A classifier of the mean pixel, rounded."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        number = ((x.mean(dim=(1, 2, 3)) + 1) * 127.5).round().long()
        return x.flatten(1), nn.functional.one_hot(number, 10).float()


def said_of(labels: list[int], wrong: int, classes: int = 10, *, own: bool = True) -> str | None:
    """The warning for validation images of these labels, of which so many look like another class."""
    labels_of = np.array(labels, dtype=np.int64)
    seen = labels_of.copy()
    seen[:wrong] = (seen[:wrong] + 1) % classes
    pixels = np.broadcast_to(seen.astype(np.uint8)[:, None, None, None], (len(labels), 4, 4, 3)).copy()
    images = ImageArray(pixels, labels_of)
    source = Source(images, images, tuple(map(str, range(classes))))
    return weak_features(FeatureNetwork("classifier", "x", Brightness(), own), source)


def test_what_is_right_on_four_fifths_is_good_and_less_is_told() -> None:
    labels = [c for c in range(10) for _ in range(10)]
    assert said_of(labels, 0) is None
    assert said_of(labels, 20) is None
    said = said_of(labels, 21)
    assert said is not None
    assert "right on 79% of 100 validation images (naming one class always: 10%)" in said
    assert "FIDs in these features say little" in said
    assert said_of(labels, 50, own=False) is None


def test_what_is_no_better_than_naming_one_class_is_told() -> None:
    """19 of 20 images are of one class: 95 % are right without having learnt anything."""
    assert "95% of 20" in str(said_of([0] * 19 + [1], 1, 2))
    assert "100% of 1 validation image (" in str(said_of([3], 0))
    assert "the data has 1 class, from which" in str(said_of([0] * 100, 0, 1))


def test_wilsons_interval() -> None:
    """scipy's own, by the same method."""
    from scipy.stats import binomtest

    for right, count in ((1, 1), (8, 10), (79, 100), (0, 5)):
        low = binomtest(right, count).proportion_ci(0.95, "wilson").low
        assert _least_share(right, count) == pytest.approx(low, abs=1e-4)


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A folder of two classes of noise: nobody can tell them apart."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "noise" / name).mkdir(parents=True)
        for i in range(40):
            cv2.imwrite(str(tmp_path / "noise" / name / f"{i}.png"), rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return tmp_path / "noise"


def test_training_says_it_at_the_beginning_and_at_the_end_and_an_evaluation_too(
    noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    options = [*TINY, "--data.path", str(noise), "--steps=2", "--eval.every=2", "--eval.samples=70"]
    assert train_main(["--out", str(run), *options]) == 0
    beginning, end = capsys.readouterr().out.split("finished at step 2")
    for part in (beginning, end):
        assert part.count("FIDs in these features say little") == 1
        assert "validation images (naming one class always: " in part
    assert eval_main(["--ckpt", str(run), "--samples=70", "--standing-passes=1"]) == 0
    assert capsys.readouterr().err.count("FIDs in these features say little") == 1
    digits = tmp_path / "digits"
    assert train_main(["--out", str(digits), *TINY, "--steps=2", "--eval.every=2", "--eval.samples=70"]) == 0
    assert "say little" not in capsys.readouterr().out


def test_counts_are_in_good_english(noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert data_main(["inspect", str(noise)]) == 0
    said = capsys.readouterr().out
    assert ", 2 classes\n" in said
    assert "80 images, 40 a class" in said
    (noise / "a").rename(tmp_path / "one")
    assert data_main(["inspect", str(tmp_path / "one")]) == 0
    assert ", 1 class\n" in capsys.readouterr().out
    (noise / "b" / "0.png").rename(noise / "0.png")
    run = tmp_path / "run"
    assert train_main(["--out", str(run), *TINY, "--data.path", str(tmp_path / "one"), "--steps=1"]) == 0
    assert "8x8, 1 class\n" in capsys.readouterr().out
