"""Whole runs on a GPU that is not there: monitor, evaluation, checkpoints, resuming, sampling and branches.

The numbers are a CPU's, so the state that a run ends with is that of the same run on the CPU, to the bit.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gpu_with_values
import pytest
import torch
from safetensors.torch import load_file

import spectra
from biggan.cli.train import train_main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ALL_THAT_WATCHES = [
    *("--model.resolution=8", "--model.ch=4", "--train.batch=8", "--ema.start=2", "--quiet", "--checkpoint.every=2"),
    *("--spectra.every=1", "--eval.every=2", "--discriminator_view.every=2", "--samples.every=2"),
]
CASES = {
    "plain": [],
    "tracked": ["--spectra.guarantee=tracked"],
    "penalties": ["--regularizers.orthogonal_G=1e-3", "--regularizers.dropout_keep=0.8"],
    "BatchNorm in D": ["--model.norm_D=conditional"],
    "accumulated, recomputed": ["--train.accumulate=2", "--train.recompute=true", "--train.d_steps=2"],
    "switches": [
        *("--speed.narrow_skips=true", "--speed.fused_resampling=true"),
        *("--speed.channels_last=true", "--speed.batched_power_iteration=true"),
    ],
}


def on_gpu(library: Path, command: str, *arguments: str) -> str:
    program = [sys.executable, gpu_with_values.__file__, str(library), command, *arguments]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def same_state(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def events(run: Path) -> set[str]:
    return set(spectra.load(run)["events"]["event"])


@pytest.mark.parametrize("case", CASES)
def test_a_run_ends_with_the_bits_of_the_cpu(case: str, library: Path, tmp_path: Path) -> None:
    options = [*ALL_THAT_WATCHES, *CASES[case], "--steps=4"]
    assert train_main([*options, "--device=cpu", f"--out={tmp_path / 'cpu'}"]) == 0
    on_gpu(library, "biggan-train", *options, "--device=cuda", f"--out={tmp_path / 'gpu'}")
    last = Path("checkpoints/step-00000004.safetensors")
    assert same_state(tmp_path / "cpu" / last, tmp_path / "gpu" / last)
    grid = Path("samples/step-00000004.png")
    assert (tmp_path / "cpu" / grid).read_bytes() == (tmp_path / "gpu" / grid).read_bytes()
    assert events(tmp_path / "gpu") == events(tmp_path / "cpu")
    keys = ["step", "network", "layer"]
    there, here = (spectra.load(tmp_path / name)["spectra"].set_index(keys) for name in ("gpu", "cpu"))
    assert list(there.columns) == list(here.columns)
    torch.testing.assert_close(
        *(torch.tensor(frame["sigma0"].to_numpy()) for frame in (there, here)), rtol=1e-4, atol=0
    )


OTHER_NUMBERS = {
    "bfloat16": ["--speed.precision=bfloat16"],  # another list of operators in reduced precision
    "float16": ["--speed.precision=float16"],
    "R1": ["--regularizers.r1=1"],  # torch differentiates a convolution twice in another order
    "clamped": ["--model.clamp_G.ratio=1.05", "--model.clamp_G.mode=project"],  # another estimator
}


@pytest.mark.parametrize("case", OTHER_NUMBERS)
def test_where_a_gpu_computes_otherwise_it_runs(case: str, library: Path, tmp_path: Path) -> None:
    options = [*ALL_THAT_WATCHES, *OTHER_NUMBERS[case], "--steps=2", "--device=cuda"]
    on_gpu(library, "biggan-train", *options, f"--out={tmp_path / 'run'}")
    assert "not_measured" not in events(tmp_path / "run")


def test_what_is_done_with_a_run(library: Path, tmp_path: Path) -> None:
    """Resume it, branch it with a control, score and sample it."""
    options = [*ALL_THAT_WATCHES, "--device=cuda"]
    run, whole = tmp_path / "run", tmp_path / "whole"
    on_gpu(library, "biggan-train", *options, "--steps=4", f"--out={whole}")
    on_gpu(library, "biggan-train", *options, "--steps=2", f"--out={run}")
    on_gpu(library, "biggan-train", f"--resume={run}", "--steps=4", "--quiet")
    last = "checkpoints/step-00000004.safetensors"
    assert same_state(run / last, whole / last)
    control = ["--ckpt", str(run), "--at", "2", "--control", "--steps", "2", "--out", str(tmp_path / "control")]
    assert "bit for bit" in on_gpu(library, "biggan-intervene", *control, "--quiet")
    scores = on_gpu(
        library, "biggan-eval", "--ckpt", str(run), "--samples=1000", "--standing-passes=2", "--device=cuda"
    )
    assert "fid" in scores
    on_gpu(library, "biggan-sample", "--ckpt", str(run), "--out", str(tmp_path / "grid.png"))
    assert (tmp_path / "grid.png").exists()


def test_a_tensor_on_the_wrong_device_is_found(library: Path) -> None:
    """And reading one without moving it."""
    script = f"""
import ctypes
ctypes.CDLL({str(library)!r}, mode=ctypes.RTLD_GLOBAL)
import torch, gpu_with_values
with gpu_with_values.pretended():
    there, here = torch.ones(3, device="cuda"), torch.ones(3)
    assert (there + there.sum()).cpu().tolist() == [4.0, 4.0, 4.0]
    for wrong in (lambda: there + here, lambda: torch.nn.Linear(3, 2)(there), there.numpy, lambda: here.add_(there)):
        try:
            wrong()
        except (RuntimeError, TypeError):
            continue
        raise SystemExit("not found")
"""
    helpers = Path(gpu_with_values.__file__).parent
    done = subprocess.run([sys.executable, "-c", script], cwd=helpers, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
