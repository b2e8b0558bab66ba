"""StudioGAN's checkpoints become runs: every tensor; what is no network of this program is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from foreign_layouts import trained_state, write_studiogan
from tiny import assert_same_state

from biggan.cli.import_weights import import_main
from biggan.config import Config, from_dict
from biggan.run.checkpoint import read_checkpoint


def configuration(**model: object) -> Config:
    shape = {"resolution": 32, "ch": 8, "classes": 3, "z_dim": 16, "embedding_dim": 6}
    eps = {"batchnorm_eps": 1e-4, "spectral_norm_eps": 1e-6}
    return from_dict(
        {
            "model": {**shape, **eps, **model},
            "optim": {"G": {"lr": 5e-5, "eps": 1e-6}, "D": {"lr": 2e-4, "eps": 1e-6}},
            "train": {"batch": 64, "d_steps": 5},
        }
    )


@pytest.mark.parametrize(
    "model",
    [
        {"ch_G": 8, "ch_D": 4, "attention_G": [16], "attention_D": [16]},
        pytest.param(
            {"family": "biggan-deep", "resolution": 64, "ch": 4, "z_dim": 5, "attention_G": [16]},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["BigGAN", "BigGAN-deep"],
)
def test_every_tensor_comes_back(model: dict, tmp_path: Path) -> None:
    config = configuration(**model)
    state = trained_state(config)
    write_studiogan(state, config, tmp_path / "theirs")
    line = [str(tmp_path / "theirs"), "--out", str(tmp_path / "run"), "--train.batch=64", "--train.d_steps=5"]
    assert import_main(line) == 0
    found = read_checkpoint(tmp_path / "run/checkpoints/step-00000007.safetensors")
    assert_same_state(found.tensors, state.tensors())
    assert (found.config.optim, found.config.train) == (config.optim, config.train)
    assert (found.config.model.batchnorm_eps, found.config.model.spectral_norm_eps) == (1e-4, 1e-6)
    facts = json.loads((tmp_path / "run/run.json").read_text())["imported"]
    assert facts["assumed"] == {"train.accumulate": 1, "ema.decay": 0.9999, "ema.start": 20000}
    assert "two forwards, with a power iteration in each" in facts["differences"][0]


def test_what_does_not_map_is_refused_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = configuration()
    write_studiogan(trained_state(config), config, tmp_path / "theirs")

    def try_without(role: str, name: str, instead: dict | None = None) -> str:
        path = tmp_path / f"theirs/model={role}-current-weights-step=7.pth"
        before = path.read_bytes()
        content = torch.load(path, weights_only=False)
        content["state_dict"] = {k: v for k, v in content["state_dict"].items() if not k.startswith(name)}
        content["state_dict"] |= instead or {}
        torch.save(content, path)
        assert import_main([str(tmp_path / "theirs"), "--out", str(tmp_path / "run")]) == 2
        assert not (tmp_path / "run").exists()
        path.write_bytes(before)
        return " ".join(capsys.readouterr().err.split())

    assert "no class embedding (g_cond_mtd W/O)" in try_without("G", "shared.")
    assert "not a projection discriminator" in try_without("D", "embedding.")
    assert "BatchNorm instead of Spectral" in try_without("D", "x", {"blocks.0.0.bn1.weight": torch.ones(3)})
    deep = {f"blocks.{i}.0.conv2d4.weight_orig": torch.ones(2, 2, 1, 1) for i in range(3)}
    assert "has 3 blocks" in try_without("G", "x", deep)
