"""Activation checkpointing: the same bits, and less memory, as estimated."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch
from tiny import assert_same_state

from biggan.cli.train import train_main
from biggan.config import Config, ModelConfig
from biggan.networks import resampling
from biggan.networks.discriminator import Discriminator
from biggan.networks.generator import Generator
from biggan.networks.spectral_norm import normalized
from biggan.training.estimate import LiveTensors, _nowhere, _reduced, _SavedTensors, estimate, largest_micro_batch

CASES = {
    "plain": {},
    "r1 under accumulation": {
        "train": {"accumulate": 2},
        "regularizers": {"r1": 1.0, "gradient_penalty": 1.0, "dropout_keep": 0.8},
        "model": {"norm_D": "conditional", "attention_G": [8], "attention_D": [4]},
    },
    "deep, frozen D": {
        "model": {"family": "biggan-deep", "resolution": 32, "z_dim": None},
        "train": {"freeze": "D", "batch": 4, "d_steps": 1},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits(case: str, tiny: Callable, play: Callable) -> None:
    steps = 3 if case == "plain" else 2
    one, numbers = play(tiny(steps=steps, **CASES[case]))
    again = {"train": {**CASES[case].get("train", {}), "recompute": True}}
    two, same = play(tiny(steps=steps, **CASES[case] | again))
    assert numbers == same
    assert_same_state(one.tensors(), two.tensors())


@pytest.mark.parametrize("kind", [Generator, Discriminator])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_kept_is_what_is_estimated(kind: type, recompute: bool, precision: str, tiny: Callable) -> None:
    """What a forward pass leaves behind, against the estimate without the one block that is being computed again."""
    config = tiny(speed={"precision": precision})
    with _nowhere(config):
        network = kind(ModelConfig(resolution=32, ch=16))
        y = torch.zeros(8, dtype=torch.int64)
        first = torch.zeros(8, network.z_dim) if kind is Generator else torch.zeros(8, 3, 32, 32)
        network.recompute = recompute
        with LiveTensors() as live, normalized(network, iterate=False), _reduced(config):
            out = network(first, y)
        network.recompute = False
        hooks = _SavedTensors(network.blocks if recompute else ())
        with hooks as saved, normalized(network, iterate=False), _reduced(config):
            network(first, y)
    kept = sum(storage.nbytes() for storage in saved.kept.values())
    assert kept == pytest.approx(live.now, abs=first.nbytes + out.nbytes + 1024)
    assert (saved.bytes > kept) == recompute


@pytest.fixture
def estimated(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """`estimate`, which takes half a second, once for each configuration, also where the largest is searched."""
    known: dict[str, dict] = {}

    def once(config: Config, processes: int = 1) -> dict:
        key = f"{processes} {config}"
        return known[key] if key in known else known.setdefault(key, estimate(config, processes))

    monkeypatch.setattr("biggan.training.estimate.estimate", once)
    return once


def test_recomputation_and_processes_need_less_and_the_largest_micro_batch_fits(
    tiny: Callable, estimated: Callable
) -> None:
    config = tiny(train={"batch": 48})
    again = tiny(train={"batch": 48, "recompute": True})
    whole = estimated(config)["memory_bytes"]
    assert estimated(again)["memory_bytes"] < whole
    reduced = tiny(train={"batch": 48}, speed={"precision": "bfloat16"})
    assert 0.5 < estimated(reduced)["memory"]["activations"] / estimated(config)["memory"]["activations"] < 0.75
    one, several = (estimated(config, processes)["memory"]["activations"] for processes in (1, 3))
    assert one / 3 < several < one / 2  # the normalized weights are kept by each
    assert largest_micro_batch(config, 2 * whole) == (48, 1, whole)
    micro, accumulate, needed = largest_micro_batch(config, int(0.9 * whole))
    assert micro * accumulate == 48
    assert needed <= 0.9 * 0.9 * whole
    coarser = max(cut for cut in range(1, accumulate) if 48 % cut == 0)
    assert estimated(tiny(train={"batch": 48, "accumulate": coarser}))["memory_bytes"] > 0.9 * 0.9 * whole
    assert largest_micro_batch(config, whole // 100) is None


def test_a_dry_run_names_the_largest_micro_batch(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--dry-run", "--json", "--model.resolution=8", "--model.ch=4", "--train.batch=32"]
    assert train_main([*line, "--memory=1GiB", "--processes=2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"]["micro_batch"] == 32
    assert found["fits"]["memory_bytes"] == found["memory_bytes"] < 0.9 * 2**30
    assert train_main([*line, "--memory=much"]) == 2
    assert "expected a size such as 80GiB" in " ".join(capsys.readouterr().err.split())
    assert train_main(["--memory=1GiB"]) == 2
    assert "--memory needs --dry-run" in " ".join(capsys.readouterr().err.split())
    assert train_main([*line, "--processes=64"]) == 2
    assert "64 processes are to share train.batch 32" in " ".join(capsys.readouterr().err.split())


REDUCED = {
    "fused": {"speed": {"precision": "bfloat16", "fused_resampling": True}},
    "clamped": {"speed": {"precision": "float16"}, "model": {"clamp_G": {"value": 1.0, "mode": "forward"}}},
}


@pytest.mark.parametrize("case", REDUCED)
def test_reduced_precision_is_estimated_time_and_again(
    case: str, tiny: Callable, play: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shapes without numbers leave nothing behind for what trains in the same process, nor trip over what that left."""
    monkeypatch.setattr(resampling, "is_faster_fused", lambda *_: True)
    monkeypatch.setattr(resampling, "_MATRICES", {})
    config = tiny(steps=1, **REDUCED[case])
    first = estimate(config)
    assert estimate(config) == first
    play(config)
    assert estimate(config) == first


def test_the_largest_micro_batch_is_found_where_finer_cuts_take_more(tiny: Callable, estimated: Callable) -> None:
    """7 processes share 64 images unevenly, so a finer cut gives the first of them more images to make at once."""
    config = tiny(train={"batch": 64, "recompute": True}, model={"resolution": 32, "ch": 16})
    needs = {cut: estimated(with_cut(config, cut), 7)["memory_bytes"] for cut in (1, 2, 4, 8)}
    assert needs[2] < needs[4] < needs[8]
    found = largest_micro_batch(config, int(needs[2] / 0.9) + 1024, 7)
    assert found == (32, 2, needs[2])


def with_cut(config: Config, cut: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, accumulate=cut))
