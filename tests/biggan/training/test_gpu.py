"""Exactness on a GPU in deterministic mode. Run with `pytest -m gpu` where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import assert_same_state

from biggan.cli.train import train_main
from biggan.config import from_dict
from biggan.data.loader import training_batches
from biggan.data.prefetch import prefetched
from biggan.data.sources.opening import open_source
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from biggan.training.state import TrainingState
from biggan.training.step import Updater

pytestmark = pytest.mark.gpu

OPTIONS = ["--device=cuda", "--model.attention_G=[8]", "--model.attention_D=[8]", "--checkpoint.every=4", "--quiet"]


@pytest.fixture(autouse=True)
def _needs_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")


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


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_nothing_in_an_update_waits_for_the_device(precision: str) -> None:
    """The one wait of a step is the transfer of its numbers, at its end."""
    config = from_dict({"device": "cuda", "speed": {"precision": precision, "fused_resampling": True}})
    state = TrainingState(config, "cuda")
    updater = Updater(config, state, lambda *_: None, lambda *_: None)
    batches = prefetched(training_batches(config, open_source(config), 0), torch.device("cuda"))
    for checked in (False, True):  # the first step chooses kernels
        torch.cuda.set_sync_debug_mode("error" if checked else "default")
        try:
            updater.update_discriminator(0, *next(batches))
            stats = updater.update_generator()
            state.ema.update(state.G, 2000, stats.get("skipped/G"))
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_prefetched_batches_are_the_loader_s() -> None:
    config = from_dict({"device": "cuda"})
    source, device = open_source(config), torch.device("cuda")
    ahead, plain = (training_batches(config, source, 3) for _ in range(2))
    for (images, labels), (wanted, wanted_labels), _ in zip(prefetched(ahead, device), plain, range(5), strict=False):
        assert images.is_cuda
        assert torch.equal(images.cpu(), wanted)
        assert torch.equal(labels.cpu(), wanted_labels)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precision_resumes_exactly(tmp_path: Path, precision: str) -> None:
    options = [*OPTIONS, f"--speed.precision={precision}", "--speed.channels_last=true"]
    assert train_main(["--out", str(tmp_path / "whole"), "--steps=8", *options]) == 0
    assert train_main(["--out", str(tmp_path / "parts"), "--steps=4", *options]) == 0
    assert train_main(["--resume", str(tmp_path / "parts"), "--steps=8", "--quiet"]) == 0
    assert_same_state(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
