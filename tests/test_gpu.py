"""Exactness on a GPU in deterministic mode. Run with `pytest -m gpu` where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import assert_same_state

from biggan.checkpoint import checkpoint_paths, read_checkpoint
from biggan.cli import train_main

pytestmark = pytest.mark.gpu

OPTIONS = ["--device=cuda", "--model.attention_G=[8]", "--model.attention_D=[8]", "--checkpoint.every=4", "--quiet"]


@pytest.fixture(autouse=True)
def _needs_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")


def final_state(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(checkpoint_paths(run)[-1]).tensors


def test_stopped_and_resumed_equals_never_stopped(tmp_path: Path) -> None:
    assert train_main(["--out", str(tmp_path / "whole"), "--steps=12", *OPTIONS]) == 0
    assert train_main(["--out", str(tmp_path / "parts"), "--steps=4", *OPTIONS]) == 0
    assert train_main(["--resume", str(tmp_path / "parts"), "--steps=12", "--quiet"]) == 0
    assert_same_state(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))


def test_the_monitor_does_not_change_the_bits(tmp_path: Path) -> None:
    for monitor in ("spectra", "none"):
        options = [*OPTIONS, "--spectra.every=1", f"--monitor={monitor}"]
        assert train_main(["--out", str(tmp_path / monitor), "--steps=6", *options]) == 0
    assert_same_state(final_state(tmp_path / "spectra"), final_state(tmp_path / "none"))


def test_the_same_draws_as_on_a_cpu(tmp_path: Path) -> None:
    """After one step the devices agree but for rounding: images, noise and weights were the same."""
    for device in ("cuda", "cpu"):
        assert train_main(["--out", str(tmp_path / device), "--steps=1", *OPTIONS[1:], f"--device={device}"]) == 0
    cuda, cpu = final_state(tmp_path / "cuda"), final_state(tmp_path / "cpu")
    for name in cpu:
        if name.endswith("running_mean"):
            torch.testing.assert_close(cuda[name], cpu[name], rtol=1e-2, atol=1e-3)
