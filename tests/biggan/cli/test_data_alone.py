"""`biggan-train --data.path DIR` alone: the kind of data and the number of classes are the data's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pictures import pack, write_folder, write_parquet
from tiny import TINY

from biggan.cli.options import parse
from biggan.cli.train import train_main
from biggan.config.presets import preset_names
from biggan.run.directory import RunDirectory

QUIET = [*TINY, "--steps=1"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos", {"ant": 70, "bee": 70, "cat": 70})


def planned(capsys: pytest.CaptureFixture, *line: str) -> tuple[dict, str]:
    assert train_main([*line, "--dry-run", "--json"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out)["config"], " ".join(said.err.split())


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_takes_the_data_as_it_is(preset: str, photos: Path, capsys: pytest.CaptureFixture) -> None:
    config, said = planned(capsys, preset, f"--data.path={photos}")
    assert config["model"]["classes"] == 3
    assert config["data"]["source"] in ("auto", "folder")
    assert f"taken from the data in {photos}: data.source {config['data']['source']}, model.classes 3" in said


@pytest.mark.parametrize("size", [[], ["--model.resolution=32"]])
def test_a_run_of_the_default_preset_says_what_it_took(
    size: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    small = ["--model.ch_G=4", "--model.ch_D=4", "--train.batch=8", "--samples.every=0", "--tensorboard.every=0"]
    run = tmp_path / "run"
    assert train_main([f"--data.path={photos}", *size, *small, "--steps=1", "--out", str(run)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"taken from the data in {photos}: data.source auto, model.classes 3 (--data.source and")
    config = RunDirectory(run).read_config()
    assert (config.data.source, config.model.classes, config.model.resolution) == ("auto", 3, 32 if size else 16)


def test_what_is_given_is_not_taken_from_the_data(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train_main([f"--data.path={photos}", "--model.classes=5", *QUIET, "--out", str(tmp_path / "run")]) == 2
    assert "has 3 classes, and model.classes is 5" in " ".join(capsys.readouterr().err.split())
    assert train_main([f"--data.path={photos}", "--data.source=parquet", *QUIET]) == 2
    assert "holds no .parquet file" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "a.yaml").write_text(f"data: {{path: {photos}, source: folder}}\nmodel: {{classes: 3}}\n")
    assert parse(["--config", str(tmp_path / "a.yaml")]).left_to_data() == set()
    config, _ = planned(capsys, f"--data.path={photos}", "--data.top_classes=2")
    assert config["model"]["classes"] == 2
    config, said = planned(capsys, "cifar10", "--data.path=/nowhere/at/all")
    assert (config["model"]["classes"], config["data"]["source"]) == (10, "parquet")
    assert "/nowhere/at/all is not here, so model.classes is the preset's 10" in said


def test_a_source_that_reads_it_stays(photos: Path, tmp_path: Path) -> None:
    """Runs that were begun with such a line go on with it: the field is part of what decides the numbers."""
    parquet = write_parquet(tmp_path / "rows/train-0.parquet", [0, 1, 1, 0]).parent
    packed = pack(photos, tmp_path / "packed")
    for preset, path, source in (
        ("cifar10", parquet, "parquet"),
        ("cifar10", packed, "parquet"),
        ("cifar10", photos, "auto"),
        ("imagenet128", photos, "folder"),
        ("imagenet128", packed, "folder"),
        ("imagenet128", parquet, "auto"),
        ("digits", packed, "auto"),
    ):
        assert parse([preset, f"--data.path={path}"]).config().data.source == source
    assert parse(["digits"]).config().data.source == "digits"


def test_one_line_begins_and_continues_a_run(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    line = [f"--data.path={photos}", *TINY, "--out", str(run), "--resume-or-start", "--quiet"]
    assert train_main([*line, "--steps=1"]) == 0
    assert train_main([*line, "--steps=2"]) == 0
    assert train_main(["--resume", str(run), f"--data.path={photos}", "--steps=3", "--quiet"]) == 0
    assert RunDirectory(run).read_config().model.classes == 3
    other = write_folder(tmp_path / "other", {"x": 4, "y": 4})
    assert train_main([line[0].replace("photos", "other"), *line[1:], "--steps=4"]) == 2
    assert f"the data ({other}) has 2 classes, and model.classes is 3" in " ".join(capsys.readouterr().err.split())


def test_the_default_s_device_and_directory_are_for_its_digits(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = parse([f"--data.path={photos}"]).config()
    assert (own.device, own.out) == ("auto", "runs/photos")
    Path("runs/photos").mkdir(parents=True)
    assert parse(["--data.path=photos/"]).config().out == "runs/photos-2"
    given = parse([f"--data.path={photos}", "--device=cpu", "--out=mine"]).config()
    assert (given.device, given.out) == ("cpu", "mine")
    named = parse(["digits", f"--data.path={photos}"]).config()
    assert (named.device, named.out) == ("cpu", None)
