"""`data.no_validation`: every image is for training, and what needs others is not measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pictures import configuration, pack, write_folder
from tiny import TINY

import spectra
from biggan.cli.evaluate import eval_main
from biggan.cli.train import train_main
from biggan.data.sources.opening import open_source
from biggan.errors import UserError


def test_every_image_is_for_training(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos", {"ant": 9, "cat": 12, "eel": 1})
    for path in (root, pack(root, tmp_path / "packed")):
        source = open_source(configuration(path, 3, no_validation=True))
        assert (len(source.train), len(source.val)) == (22, 0)
        assert np.bincount(source.train.labels).tolist() == [9, 12, 1]
        assert "all 22 images are for training" in source.notes[-1]
    top = open_source(configuration(root, 2, no_validation=True, top_classes=2))
    assert (len(top.train), len(top.val), top.classes) == (21, 0, ("ant", "cat"))
    singles = write_folder(tmp_path / "singles", {"a": 1, "b": 1})
    with pytest.raises(UserError, match=r"--data\.no_validation true"):
        open_source(configuration(singles, 2))
    assert len(open_source(configuration(singles, 2, no_validation=True)).train) == 2


def test_a_split_of_its_own_is_not_dropped_in_silence(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos/train", {"ant": 3})
    write_folder(tmp_path / "photos/val", {"ant": 2})
    with pytest.raises(UserError, match="has a validation split of its own"):
        open_source(configuration(tmp_path / "photos", 1, no_validation=True))


def test_a_run_records_nothing_of_validation_images_and_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    root, run = write_folder(tmp_path / "photos", {"ant": 9, "cat": 12}), str(tmp_path / "run")
    line = ["--data.source=auto", f"--data.path={root}", "--model.classes=2", "--data.no_validation=true", *TINY]
    measured = ["--discriminator_view.every=2", "--eval.every=0"]
    assert train_main([*line, *measured, "--eval.reference=val", "--out", run]) == 2
    assert "leaves no validation image" in " ".join(capsys.readouterr().err.split())
    assert train_main([*line, *measured, "--steps=2", "--out", run]) == 0
    assert "what D memorizes are not measured" in capsys.readouterr().out
    scalars = spectra.load(run)["scalars"]
    names = {name for name in scalars["name"] if name.startswith("D/a")}
    assert names == {"D/accuracy/train", "D/accuracy/fake", "D/auc/real_fake"}
    options = ["--ckpt", run, "--samples", "1000", "--standing-passes", "1"]
    assert eval_main([*options, "--discriminator"]) == 0
    assert "what D memorizes is not known" in capsys.readouterr().out
    assert eval_main(options) == 0
    (table,) = (tmp_path / "run/evaluations").glob("scores-*.json")
    (row,) = json.loads(table.read_text())["rows"]
    assert set(row["accuracies"]) == {"train", "fake"}
    assert eval_main([*options, "--reference", "val"]) == 2
    assert "Give --reference train" in " ".join(capsys.readouterr().err.split())
    assert train_main(["--resume", run, "--steps=3", "--data.no_validation=false"]) == 2
