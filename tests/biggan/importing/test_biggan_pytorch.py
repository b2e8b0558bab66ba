"""Folders of BigGAN-PyTorch become runs: every tensor, and a whole training step, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_layouts import trained_state, write_biggan_pytorch
from tiny import assert_same_state

from biggan.cli.import_weights import import_main
from biggan.config import Config, from_dict
from biggan.run.checkpoint import Checkpoint, read_checkpoint
from biggan.training.state import TrainingState
from biggan.training.step import Updater

SETTINGS: dict[str, Any] = {
    "batch_size": 4,
    "num_D_accumulations": 1,
    "num_G_accumulations": 1,
    "num_D_steps": 2,
    "G_ortho": 2e-3,
    "D_ortho": 0.0,
    "BN_eps": 1e-5,
    "SN_eps": 1e-6,
    "ema": True,
    "ema_decay": 0.9,
    "ema_start": 3,
    "G_init": "ortho",
    "norm_style": "bn",
    "G_nl": "inplace_relu",
    "D_nl": "inplace_relu",
}


def configuration(**model: object) -> Config:
    """A run as `SETTINGS` describes it, with the settings of Adam that our trainer takes from the files."""
    return from_dict(
        {
            "steps": 7,
            "device": "cpu",
            "model": {
                "resolution": 32,
                "ch": 8,
                "classes": 3,
                "z_dim": 16,
                "embedding_dim": 6,
                "batchnorm_eps": 1e-5,
                "batchnorm_eps_last": 1e-5,
                "spectral_norm_eps": 1e-6,
                **model,
            },
            "data": {"source": "auto"},
            "train": {"batch": 4, "d_steps": 2},
            "optim": {"G": {"lr": 1e-3, "eps": 1e-6}, "D": {"lr": 4e-3, "eps": 1e-6}},
            "regularizers": {"orthogonal_G": 1e-3},
            "ema": {"decay": 0.9, "start": 2},
        }
    )


def imported(folder: Path, out: Path, *options: str) -> Checkpoint:
    assert import_main([str(folder), "--out", str(out), "--device=cpu", *options]) == 0
    (path,) = (out / "checkpoints").glob("step-*.safetensors")
    return read_checkpoint(path)


MODELS = {
    "BigGAN with attention": {"attention_G": [16], "attention_D": [16]},
    "attention after every block of D": {"attention_G": [8, 32], "attention_blocks_D": [0, 1, 2, 3]},
    "shared, not hierarchical": {"skip_z": False},
    "class tables (SA-GAN)": {"skip_z": False, "shared_embedding": False, "embedding_dim": None},
    "64 pixels, other widths": {"resolution": 64, "z_dim": 20, "ch_G": 3, "ch_D": 2, "ch": 16},
    "BigGAN-deep": {"family": "biggan-deep", "resolution": 64, "z_dim": 5, "ch": 4, "attention_G": [16]},
}


FAST = {"attention after every block of D", "BigGAN-deep"}


@pytest.mark.parametrize(
    "model",
    [pytest.param(one, id=name, marks=() if name in FAST else pytest.mark.slow) for name, one in MODELS.items()],
)
def test_every_tensor_and_the_configuration_come_back(model: dict, tmp_path: Path) -> None:
    config = configuration(**model)
    state = trained_state(config)
    write_biggan_pytorch(state, config, tmp_path / "theirs", settings=SETTINGS)
    found = imported(tmp_path / "theirs", tmp_path / "run")
    assert_same_state(found.tensors, state.tensors())
    assert found.step == 7
    for part in ("train", "optim", "regularizers", "ema", "loss", "latents", "data"):
        assert getattr(found.config, part) == getattr(config, part)
    assert TrainingState(found.config, initialize=False).tensors().keys() == state.tensors().keys()


def one_step(config: Config, state: TrainingState) -> None:
    """A whole step on made-up images, with the draws of its own seed."""
    updater = Updater(config, state, lambda network, k: None, lambda network, k: None)
    random = torch.Generator().manual_seed(2)
    for k in range(config.train.d_steps):
        images = torch.rand(4, 3, 32, 32, generator=random) * 2 - 1
        updater.update_discriminator(k, images, torch.tensor([0, 1, 2, 1]))
    updater.update_generator()
    state.step += 1
    state.ema.update(state.G, state.step)


@pytest.mark.parametrize(
    "form", [pytest.param({}, marks=pytest.mark.slow), {"old": True, "wrapped": True, "suffix": "_best0"}]
)
def test_a_step_of_the_imported_run_is_a_step_of_the_original(form: dict, tmp_path: Path) -> None:
    config = configuration(attention_G=[16], attention_D=[16])
    state = trained_state(config)
    write_biggan_pytorch(state, config, tmp_path / "theirs", settings=SETTINGS, **form)
    found = imported(tmp_path / "theirs", tmp_path / "run")
    other = TrainingState(found.config, initialize=False)
    other.load(found.tensors, found.step)
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    one_step(config, state)
    one_step(found.config, other)
    assert_same_state(other.tensors(), state.tensors())
    assert not torch.equal(before["G.linear.weight"], state.tensors()["G.linear.weight"])


def test_what_is_different_and_where_it_came_from_is_in_run_json(tmp_path: Path) -> None:
    config = configuration()
    settings = {**SETTINGS, "num_D_accumulations": 2, "num_G_accumulations": 4, "split_D": True, "D_ortho": 1e-4}
    write_biggan_pytorch(trained_state(config), config, tmp_path / "theirs", settings=settings)
    found = imported(tmp_path / "theirs", tmp_path / "run")
    assert (found.config.train.batch, found.config.train.accumulate) == (8, 2)
    assert found.config.regularizers.orthogonal_D == 5e-5
    facts = json.loads((tmp_path / "run/run.json").read_text())["imported"]
    assert (facts["kind"], facts["step"], facts["trains"], facts["assumed"]) == ("biggan-pytorch", 7, True, {})
    assert set(facts["files"]) == {f"{name}.pth" for name in ("G", "D", "G_ema", "G_optim", "D_optim", "state_dict")}
    said = " ".join(facts["differences"])
    for word in ("eq. 3", "unbiased variance", "in each micro-batch", "16 images and D's 8", "two forwards", "seed 0"):
        assert word in said


def test_without_settings_the_step_is_that_of_adam_and_the_rest_is_assumed(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = configuration()
    write_biggan_pytorch(trained_state(config), config, tmp_path / "theirs")
    found = imported(tmp_path / "theirs", tmp_path / "run", "--train.batch=2048", "--train.accumulate=8")
    assert (found.step, found.config.train.batch, found.config.train.accumulate) == (7, 2048, 8)
    said = capsys.readouterr().out
    assert "--model.spectral_norm_eps 1e-08" in said
    assert "--train.batch" not in said
    again = imported(tmp_path / "theirs", tmp_path / "other", "--step=90")
    assert again.step == 90


def test_standing_sums_become_means_and_an_averaged_vector_a_unit_vector(tmp_path: Path) -> None:
    config = configuration()
    state = trained_state(config)
    write_biggan_pytorch(state, config, tmp_path / "theirs", settings=SETTINGS)
    tensors = torch.load(tmp_path / "theirs/G_ema.pth", weights_only=True)
    place = "blocks.0.0.bn1"
    renamed = {name.replace(f"{place}.stored", f"{place}.bn.stored"): one for name, one in tensors.items()}
    for kind in ("mean", "var"):
        renamed[f"{place}.bn.stored_{kind}"] *= 4
    renamed[f"{place}.bn.accumulation_counter"] = torch.tensor([4.0])
    renamed["linear.u0"] = renamed["linear.u0"] * 0.5
    torch.save(renamed, tmp_path / "theirs/G_ema.pth")
    found = imported(tmp_path / "theirs", tmp_path / "run").tensors
    own = state.tensors()
    for name in ("blocks.0.norm1.running_mean", "blocks.0.norm1.running_var", "linear.u"):
        torch.testing.assert_close(found[f"G_ema.{name}"], own[f"G_ema.{name}"])


def refused(folder: Path, out: Path, *options: str) -> int:
    code = import_main([str(folder), "--out", str(out), *options])
    assert not out.exists()
    assert not list(out.parent.glob(f".{out.name}*"))
    return code


def test_what_does_not_map_is_refused_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = configuration()
    theirs, out = tmp_path / "theirs", tmp_path / "run"
    write_biggan_pytorch(trained_state(config), config, theirs, settings=SETTINGS)
    G, D = (torch.load(theirs / f"{role}.pth", weights_only=True) for role in "GD")

    def try_with(name: str, content: object) -> str:
        before = (theirs / name).read_bytes()
        torch.save(content, theirs / name)
        assert refused(theirs, out) == 2
        (theirs / name).write_bytes(before)
        return " ".join(capsys.readouterr().err.split())

    thin = {**D, "blocks.0.0.conv1.weight": D["blocks.0.0.conv1.weight"][:3]}
    assert "has 3 filters (SN-GAN's channel pattern, D_wide off)" in try_with("D.pth", thin)
    assert "have no place for extra.weight" in try_with("G.pth", {**G, "extra.weight": torch.ones(2, 2)})
    assert "blocks.0.conv1.bias is [3], expected [32]" in try_with(
        "G.pth", {**G, "blocks.0.0.conv1.bias": torch.ones(3)}
    )
    assert "D has 2 classes and G 3" in try_with("D.pth", {**D, "embed.weight": D["embed.weight"][:2]})
    half = {"state": {0: {"fp32_p": torch.ones(2)}}, "param_groups": [{"betas": (0, 0.9), "params": [0]}]}
    assert "half precision (Adam16)" in try_with("G_optim.pth", half)
    sgd = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    assert "is not Adam" in try_with("G_optim.pth", sgd)
    norm = {"itr": 7, "config": {**SETTINGS, "norm_style": "in"}}
    assert "norm_style in" in try_with("state_dict.pth", norm)


def test_nothing_in_a_file_is_executed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = configuration()
    theirs, out, mark = tmp_path / "theirs", tmp_path / "run", tmp_path / "executed"
    write_biggan_pytorch(trained_state(config), config, theirs, settings=SETTINGS)

    class Hostile:
        def __reduce__(self) -> tuple:
            return (Path.touch, (mark,))

    for name in ("G.pth", "G_optim.pth"):
        before = (theirs / name).read_bytes()
        torch.save({"weight": Hostile()}, theirs / name)
        assert refused(theirs, out) == 2
        assert "would run code when loaded" in capsys.readouterr().err.replace("\n", " ")
        (theirs / name).write_bytes(before)
    torch.save({"itr": 8, "config": Hostile()}, theirs / "state_dict.pth")
    assert imported(theirs, out, "--step=12").step == 12  # the rest is sound
    assert not mark.exists()
    said = json.loads((out / "run.json").read_text())["imported"]
    assert "would run code when loaded" in " ".join(said["differences"])
    assert said["assumed"]["train.d_steps"] == 2


def test_several_states_in_a_folder_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = configuration()
    state = trained_state(config)
    theirs = tmp_path / "theirs"
    write_biggan_pytorch(state, config, theirs, suffix="_best0", settings=SETTINGS)
    state.step = 9
    write_biggan_pytorch(state, config, theirs, suffix="_copy1", settings=SETTINGS)
    assert refused(theirs, tmp_path / "run") == 2
    assert "best0, copy1. Choose one with --which" in " ".join(capsys.readouterr().err.split())
    assert imported(theirs, tmp_path / "one", "--which=copy1").step == 9
    assert imported(theirs / "G_best0.pth", tmp_path / "other").step == 7
    (theirs / "G_optim_best0.pth").unlink()
    (theirs / "G_ema_best0.pth").unlink()
    bare = imported(theirs, tmp_path / "bare", "--which=best0")
    assert not any(name.startswith("optim_G") for name in bare.tensors)
    assert torch.equal(bare.tensors["G_ema.linear.weight"], bare.tensors["G.linear.weight"])
