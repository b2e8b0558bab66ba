"""Broken images: found by their headers at the start; at a step the state before it is saved; skipped ones replaced the
same way in one go, in parts, by workers and on ranks."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import write_folder
from ranks import command, on_ranks
from tiny import assert_same_state

from biggan.cli.train import train_main
from biggan.config import from_dict
from biggan.data import headers
from biggan.data.sources.opening import open_source
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from biggan.run.directory import RunDirectory

OPTIONS = [
    "--model.resolution=8", "--model.ch_G=4", "--model.ch_D=4", "--model.classes=2", "--train.batch=4",
    "--train.d_steps=2", "--samples.every=0", "--tensorboard.every=0", "--monitor=none", "--data.source=folder",
    "--discriminator_view.every=0", "--checkpoint.every=2", "--checkpoint.keep=9", "--quiet",
]  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    return write_folder(tmp_path / "photos", {"ant": 20, "cat": 16})


def train(photos: Path, out: Path, *options: str) -> int:
    return train_main(["--out", str(out), "--data.path", str(photos), *OPTIONS, *options])


def first_drawn(photos: Path, step: int) -> Path:
    """A file that is drawn first at this step (from 1) of a run, and at none before."""
    from biggan.data.sampler import PositionalSampler

    values = {"model": {"resolution": 8, "classes": 2}, "data": {"source": "folder", "path": str(photos)}}
    source = open_source(from_dict({**values, "train": {"batch": 4, "d_steps": 2}}))
    sampler = PositionalSampler(len(source.train), batch=4, d_steps=2, seed=0)
    drawn = [[one.index for k in range(2) for one in sampler.positions(at, k)] for at in range(step)]
    index = next(one for one in reversed(drawn[-1]) if one not in {two for part in drawn[:-1] for two in part})
    return Path(source.train.name(int(source.train.indices[index])))


def cut(path: Path) -> None:
    """Leave the header, and a part of the pixels."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def state(run: Path, step: int) -> dict:
    return read_checkpoint(run / f"checkpoints/step-{step:08d}.safetensors").tensors


def test_the_step_does_not_begin_and_the_state_before_it_is_saved(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The image is of the second D batch of step 4: the first must not have been used."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train(photos, whole, "--steps=6", "--checkpoint.every=1") == 0
    path = first_drawn(photos, 4)
    kept = path.read_bytes()
    cut(path)
    assert train(photos, run, "--steps=6") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{path} is broken" in said
    assert "The state after step 3 is saved" in said
    assert_same_state(state(run, 3), state(whole, 3))
    (event,) = RunDirectory(run).events_that_hold("broken_image")
    assert (event["step"], event["name"], event["instead"]) == (3, str(path), None)
    assert train_main(["--resume", str(run), "--quiet"]) == 2
    path.write_bytes(kept)
    os.utime(path, ns=(0, 0))
    assert train_main(["--resume", str(run), "--quiet"]) == 0
    assert_same_state(state(run, 6), state(whole, 6))


def test_skipped_in_one_go_in_parts_by_workers_and_mended_meanwhile(photos: Path, tmp_path: Path) -> None:
    path = first_drawn(photos, 4)
    kept = path.read_bytes()
    cut(path)
    skip = "--data.on_broken=skip"
    whole, parts, workers, stopped = (tmp_path / name for name in ("whole", "parts", "workers", "stopped"))
    assert train(photos, whole, "--steps=8", skip) == 0
    assert train(photos, parts, "--steps=5", skip) == 0
    assert train(photos, workers, "--steps=8", skip, "--data.workers=2") == 0
    assert train(photos, stopped, "--steps=8") == 2
    assert train_main(["--resume", str(stopped), "--quiet", skip]) == 0
    path.write_bytes(kept)
    os.utime(path, ns=(0, 0))
    assert train_main(["--resume", str(parts), "--steps=8", "--quiet"]) == 0
    for other in (parts, workers, stopped):
        assert_same_state(state(other, 8), state(whole, 8))
    recorded = {
        name: RunDirectory(tmp_path / name).events_that_hold("broken_image") for name in ("whole", "parts", "workers")
    }
    (event,) = recorded["whole"]
    assert (event["step"], event["drawn_at"], event["name"]) == (4, 4, str(path))
    assert [[{**one, "time": 0} for one in events] for events in recorded.values()] == [[{**event, "time": 0}]] * 3


def test_the_next_of_its_class_in_the_order_of_ids_takes_its_place(photos: Path) -> None:
    config = from_dict({
        "model": {"resolution": 8, "classes": 2},
        "data": {"source": "folder", "path": str(photos), "on_broken": "skip"},
    })  # fmt: skip
    images = open_source(config).train
    whole = images.pixels(np.arange(len(images)))
    mine = np.flatnonzero(images.labels == 1)
    order = mine[np.argsort(images.ids["key"][mine])]
    for place in order[[-1, 0]]:  # the last one, after which comes the first, which is broken too
        Path(images.name(int(images.indices[place]))).write_bytes(b"")
    images = open_source(config).train
    assert np.array_equal(images.pixels([order[-1]])[0], whole[order[1]])
    assert [(one.index, one.instead) for one in images.take_skipped()] == [
        (images.indices[order[-1]], images.indices[order[1]])
    ]
    for place in order[1:]:
        Path(images.name(int(images.indices[place]))).write_bytes(b"")
    with pytest.raises(Exception, match="No image of its class can be read"):
        open_source(config).train.pixels([order[0]])


def test_headers_are_read_at_the_start_and_again_only_where_a_file_changed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    read: list[int] = []
    original = headers._why_broken
    monkeypatch.setattr(headers, "_why_broken", lambda files, n, most: read.append(n) or original(files, n, most))
    assert train(photos, tmp_path / "a", "--steps=1") == 0
    assert len(read) == 36
    read.clear()
    assert train(photos, tmp_path / "b", "--steps=1") == 0
    assert not read
    for name, data in (("ant/ant-3.png", b""), ("cat/cat-1.png", b"text")):
        path = sorted((photos / name).parent.iterdir())[3]
        path.write_bytes(data)
    assert train(photos, tmp_path / "c", "--steps=1") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "2 images are broken" in said
    assert "the file is empty" in said
    assert len(read) == 2
    assert not (tmp_path / "c").exists()
    assert train(photos, tmp_path / "d", "--steps=1", "--data.on_broken=skip") == 0
    assert "2 images are broken, and others of their class" in " ".join(capsys.readouterr().err.split())
    read.clear()
    assert train(photos, tmp_path / "e", "--steps=1", "--data.check=none", "--data.on_broken=skip") == 0
    assert not read


def on_two(folder: Path) -> list[tuple[int, str, str]]:
    line = ["--data.path", str(folder / "photos"), *OPTIONS, "--steps=6", "--data.check=none"]
    return [
        command(["--out", str(folder / "stop"), *line]),
        command(["--out", str(folder / "skip"), *line, "--data.on_broken=skip"]),
    ]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_all_ranks_save_and_end_whichever_met_it(photos: Path, tmp_path: Path) -> None:
    path = first_drawn(photos, 4)
    cut(path)
    main, other = on_ranks(2, on_two, tmp_path)
    assert [code for code, _, _ in main] == [code for code, _, _ in other] == [2, 0], (main, other)
    assert [checkpoint.name for checkpoint in checkpoint_paths(tmp_path / "stop")][-1] == "step-00000003.safetensors"
    for run in ("stop", "skip"):
        (event,) = RunDirectory(tmp_path / run).events_that_hold("broken_image")
        assert event["name"] == str(path)
    assert train(photos, tmp_path / "alone", "--steps=6", "--data.on_broken=skip") == 0
    one, two = (
        json.loads((tmp_path / name / "events.jsonl").read_text().splitlines()[0]) for name in ("skip", "alone")
    )
    assert one["event"] == two["event"]
    shutil.rmtree(tmp_path / "alone")
