"""A run that was imported is one like any other: sampled, scanned, scored, resumed and branched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_layouts import trained_state, write_biggan_pytorch
from PIL import Image
from tiny import assert_same_state

from biggan.cli.evaluate import eval_main
from biggan.cli.import_weights import import_main
from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from biggan.config import from_dict
from biggan.importing import writing
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from interventions.cli.main import main as intervene_main
from spectra.cli.commands import main as spectra_main

QUIET = ["--quiet", "--samples.every=0", "--tensorboard.every=0", "--discriminator_view.every=0"]
QUIET += ["--checkpoint.every=1", "--checkpoint.keep=1", "--monitor=none"]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of BigGAN-PyTorch of a toy."""
    shape = {"resolution": 32, "ch": 4, "classes": 3, "z_dim": 8, "embedding_dim": 4}
    config = from_dict({"model": {**shape, "batchnorm_eps": 1e-5, "batchnorm_eps_last": 1e-5}})
    settings = {"batch_size": 4, "num_D_steps": 1, "ema_start": 20000, "G_ortho": 0.0}
    write_biggan_pytorch(trained_state(config), config, tmp_path / "theirs", settings=settings)
    return tmp_path / "theirs"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(6):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def test_it_is_resumed_and_its_branch_is_bit_for_bit_the_resumed_run(
    theirs: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run, branch = tmp_path / "run", tmp_path / "branch"
    assert import_main([str(theirs), "--out", str(run)]) == 0
    assert train_main(["--resume", str(run), *QUIET]) == 0
    assert train_main(["--resume", str(run), "--steps=9", *QUIET]) == 2
    assert "Give --data.path" in " ".join(capsys.readouterr().err.split())
    assert train_main(["--resume", str(run), "--steps=8", f"--data.path={images}", *QUIET]) == 0
    facts = json.loads((run / "run.json").read_text())
    assert (facts["data"]["classes"], facts["class_names"]) == (3, ["a", "b", "c"])
    assert train_main(["--resume", str(run), "--steps=9", *QUIET]) == 0  # the data is known now
    assert [int(path.stem[5:]) for path in checkpoint_paths(run)] == [7, 9]  # the imported one stays
    line = ["--ckpt", str(run), "--at=7", "--steps=2", "--out", str(branch), "--quiet"]
    assert intervene_main([*line, "--control"]) == 0
    assert "bit for bit" in capsys.readouterr().out
    states = [read_checkpoint(place / "checkpoints/step-00000009.safetensors").tensors for place in (run, branch)]
    assert_same_state(*states)


def test_data_of_another_number_of_classes_is_refused(
    theirs: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    assert import_main([str(theirs), "--out", str(run)]) == 0
    (images / "d").mkdir()
    Image.new("RGB", (32, 32)).save(images / "d/0.png")
    assert train_main(["--resume", str(run), "--steps=9", f"--data.path={images}", *QUIET]) == 2
    assert "has 4 classes, and model.classes is 3" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_data_of_an_import_that_was_resumed_and_killed_is_remembered(
    theirs: Path, images: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert import_main([str(theirs), "--out", str(run)]) == 0
    assert train_main(["--resume", str(run), "--steps=8", f"--data.path={images}", *QUIET]) == 0
    (run / "checkpoints/step-00000008.safetensors").unlink()
    assert train_main(["--resume", str(run), "--steps=9", *QUIET]) == 0
    line = ["--ckpt", str(run / "checkpoints/step-00000007.safetensors"), "--steps=1", "--control", "--quiet"]
    assert intervene_main([*line, "--out", str(tmp_path / "branch")]) == 0


def test_it_is_sampled_and_scanned(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    assert import_main([str(theirs), "--out", str(run)]) == 0
    line = ["--ckpt", str(run), "--standing-passes=1", "--per-class=1"]
    assert sample_main([*line, "--out", str(tmp_path / "grid.png")]) == 0
    assert sample_main([*line, "--raw", "--out", str(tmp_path / "raw.png")]) == 0
    capsys.readouterr()
    assert spectra_main(["scan", str(run / "checkpoints/step-00000007.safetensors")]) == 0
    assert "G.blocks.0.conv1" in capsys.readouterr().out


@pytest.mark.slow
def test_it_is_scored(theirs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert import_main([str(theirs), "--out", str(run), "--data.source=digits", "--data.top_classes=3"]) == 0
    line = ["--ckpt", str(run), "--samples=64", "--standing-passes=1", "--out", str(tmp_path / "scores")]
    assert eval_main(line) == 0
    assert list((tmp_path / "scores").glob("*.json"))


def test_a_run_is_there_whole_or_not_at_all(theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "save_checkpoint", full)
        assert import_main([str(theirs), "--out", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob(".run*"))
    assert import_main([str(theirs), "--out", str(tmp_path / "run")]) == 0
    before = (tmp_path / "run/checkpoints/step-00000007.safetensors").read_bytes()
    assert import_main([str(theirs), "--out", str(tmp_path / "run")]) == 2  # another run is not written over
    assert (tmp_path / "run/checkpoints/step-00000007.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--train.batches=8"], "unknown option '--train.batches'"),
        (["digits"], "takes no preset"),
        (["--quiet"], "takes no quiet"),
        (["--resolution=64"], "model.resolution is 64, and by the shapes of its tensors it is 32"),
        (["--model.z_dim=12"], "model.z_dim is 12, and by the shapes of its tensors it is 8"),
        (["--kind=bigan-pytorch"], "did you mean 'biggan-pytorch'"),
        (["--which=best3"], "--which is 'best3'"),
        (["--step=-1"], "expected 0 or more"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], words: str, theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert import_main([str(theirs), "--out", str(tmp_path / "run"), *options]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_a_folder_of_no_layout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    torch.save({}, tmp_path / "in/model.pth")
    assert import_main([str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert f"Is it {tmp_path}/in?" in " ".join(capsys.readouterr().err.split())
    assert import_main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")]) == 2


@pytest.fixture
def averaged(theirs: Path, images: Path, tmp_path: Path) -> Path:
    """A run of the average alone, with its data."""
    (tmp_path / "average").mkdir()
    for name in ("G_ema.pth", "state_dict.pth"):
        shutil.copy(theirs / name, tmp_path / "average" / name)
    run = tmp_path / "averaged"
    assert import_main([str(tmp_path / "average"), "--out", str(run), f"--data.path={images}"]) == 0
    return run


def test_what_is_next_names_the_data_only_where_it_is_missing(
    theirs: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert import_main([str(theirs), "--out", str(tmp_path / "a"), f"--data.path={images}"]) == 0
    assert "DATA" not in capsys.readouterr().out
    assert import_main([str(theirs), "--out", str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out.count(" DATA") == 3


def test_a_generator_alone_is_scanned_and_sampled(
    averaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert spectra_main(["scan", str(averaged / "checkpoints/step-00000007.safetensors")]) == 0
    assert "G_ema.blocks.0.conv1" in capsys.readouterr().out
    line = ["--ckpt", str(averaged), "--standing-passes=1", "--per-class=1", "--out", str(tmp_path / "grid.png")]
    assert sample_main(line) == 0


def test_what_a_generator_alone_cannot_do_is_said(
    theirs: Path, averaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    full, bare = tmp_path / "full", tmp_path / "bare"
    assert import_main([str(theirs), "--out", str(full), f"--data.path={tmp_path / 'images'}"]) == 0
    assert import_main([str(theirs), "--out", str(bare), "--no-optimizers"]) == 0
    state = "checkpoints/step-00000007.safetensors"
    out = ["--steps=1", "--out", str(tmp_path / "branch"), "--quiet"]
    for line, words in (
        (["--ckpt", str(averaged), "--lr", "G=x2"], "cannot be trained on: it was imported without G, D,"),
        (["--ckpt", str(averaged), "--reinit", "D"], "cannot be trained on"),
        (["--ckpt", str(averaged), "--average-as-G", "keep"], "cannot be trained on"),
        (["--ckpt", str(full), "--weights", f"G={averaged / state}"], "holds no G, but G_ema. Choose a checkpoint"),
        (["--ckpt", str(full), "--weights", f"D={averaged / state}"], "holds no D, but G_ema. Choose a checkpoint"),
        (["--ckpt", str(full), "--weights", f"G={bare / state}"], "holds no moments of G's Adam. Give moments: zero"),
    ):
        assert intervene_main([*line, *out]) == 2
        assert words in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "branch").exists()
    weights = f"{{network: G, file: {bare / state}, moments: zero}}"
    assert intervene_main(["--ckpt", str(full), "--weights", weights, *out]) == 0


@pytest.mark.slow
def test_a_generator_alone_is_scored_on_data_with_few_validation_images(averaged: Path, tmp_path: Path) -> None:
    line = ["--ckpt", str(averaged), "--samples=64", "--standing-passes=1", "--out", str(tmp_path / "scores")]
    assert eval_main(line) == 0  # no class has two validation images
    (table,) = (tmp_path / "scores").glob("*.json")
    assert [row["of"] for row in json.loads(table.read_text())["real"]] == ["real train"]
