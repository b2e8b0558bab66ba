"""A network family from outside: two classes and one line, through every command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dcgan_discriminator import DCGANDiscriminator
from dcgan_generator import DCGANGenerator
from tiny import assert_same_state
from torch import nn

import spectra
from biggan.choices import CHOICES
from biggan.cli.evaluate import eval_main
from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from biggan.config import Config, from_dict
from biggan.errors import UserError
from biggan.networks import FAMILIES, Family, build_networks
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from interventions.cli.main import main as intervene_main

DCGAN = ["--model.family=dcgan", "--model.resolution=8", "--model.ch=4", "--train.batch=8"]


@pytest.fixture(autouse=True)
def _dcgan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "dcgan", Family("dcgan_generator:DCGANGenerator", DCGANDiscriminator))


def state(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(checkpoint_paths(run)[-1]).tensors


def test_from_training_to_a_branch(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run, cut = tmp_path / "run", tmp_path / "cut"
    options = [*DCGAN, "--train.d_steps=2", "--train.accumulate=2", "--regularizers.dropout_keep=0.9", "--quiet"]
    options += [
        "--regularizers.r1=0.1",
        "--regularizers.orthogonal_G=1e-3",
        "--checkpoint.every=2",
        "--spectra.every=2",
    ]
    options += [
        "--regularizers.sigma_D.strength=0.1",
        "--regularizers.sigma_D.target=1",
        "--discriminator_view.every=2",
    ]
    assert (
        train_main(["--out", str(run), "--steps=4", "--samples.every=2", "--samples.standing_passes=2", *options]) == 0
    )
    assert len(list((run / "samples").glob("*.png"))) == 3  # of steps 0, 2 and 4

    # Resumed bit for bit.
    assert train_main(["--out", str(cut), "--steps=2", "--samples.every=0", *options]) == 0
    assert train_main(["--resume", str(cut), "--steps=4", "--quiet"]) == 0
    assert_same_state(state(run), state(cut))

    # Monitored: all weights of both networks, and D's logits.
    frames = spectra.load(run)
    layers = set(frames["spectra"]["layer"])
    assert {"body.2", "linear", "last", "body.0"} <= {layer.split(".", 1)[1] for layer in layers} | layers
    assert frames["spectra"]["sigma0"].notna().all()

    # Sampled, evaluated, estimated, branched.
    picture = tmp_path / "grid.png"
    assert sample_main(["--ckpt", str(run), "--standing-passes=2", "--out", str(picture)]) == 0
    assert picture.exists()
    few = ["--samples=200", "--standing-passes=1"]
    assert eval_main(["--ckpt", str(run), "--out", str(tmp_path / "eval"), "--weights=raw", *few]) == 0
    assert eval_main(["--ckpt", str(run), "--out", str(tmp_path / "eval"), "--discriminator", *few]) == 0
    assert train_main(["--dry-run", *options]) == 0
    branch = tmp_path / "branch"
    assert (
        intervene_main(["--ckpt", str(run), "--at=2", "--freeze=D", "--steps=2", "--out", str(branch), "--quiet"]) == 0
    )
    before = read_checkpoint(checkpoint_paths(run)[0]).tensors
    after = state(branch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items() if name.startswith("D."))
    assert not torch.equal(after["G.linear.weight"], before["G.linear.weight"])


def test_its_name_is_in_the_help_and_in_errors(capsys: pytest.CaptureFixture) -> None:
    assert "dcgan" in CHOICES["model.family"]
    with pytest.raises(SystemExit):
        train_main(["--help"])
    assert "biggan,biggan-deep,dcgan" in "".join(capsys.readouterr().out.split())  # wherever a line is broken
    assert train_main(["--model.family=dcgn"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "unknown model.family 'dcgn'; did you mean 'dcgan'? Known: biggan, biggan-deep, dcgan." in error


def test_what_a_network_may_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithState(DCGANGenerator):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            self.norm = nn.BatchNorm2d(3)

    config = from_dict({"model": {"family": "dcgan", "resolution": 8}})
    assert isinstance(config, Config)
    assert isinstance(build_networks(config).G, DCGANGenerator)
    monkeypatch.setitem(FAMILIES, "dcgan", Family(WithState, DCGANDiscriminator))
    with pytest.raises(UserError, match=r"G of the family dcgan has a BatchNorm2d \(norm\)"):
        build_networks(config)


def test_a_setting_that_it_would_ignore_is_refused(capsys: pytest.CaptureFixture) -> None:
    for option, words in (
        ("--train.recompute=true", "has no blocks"),
        ("--regularizers.embedding_decay=0.1", "this G has none"),
        ("--model.clamp_D.value=1", "model.clamp_D"),
    ):
        assert train_main([*DCGAN, option, "--steps=1", "--dry-run"]) == 2, option
        assert words in " ".join(capsys.readouterr().err.split())
