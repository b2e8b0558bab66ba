"""`python -m biggan.bench`: counted work against a count by hand, waiting that is real, output."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from biggan import bench
from biggan.config import Config, DataConfig, ModelConfig, TrainConfig
from biggan.data.images import ImageArray
from biggan.training.state import TrainingState
from biggan.training.step import Updater

SMALL = Config(device="cpu", model=ModelConfig(ch=4), train=TrainConfig(batch=8, d_steps=2))


def counted_by_hand(config: Config, network: str) -> int:
    """Multiplications and additions of every convolution and linear layer in one update.

    Forward; again for the weight's gradient where it is wanted, and again for the input's.
    """
    state = TrainingState(config)
    updater = Updater(config, state, lambda *_: None, lambda *_: None)
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight: Tensor = layer.applied if getattr(layer, "applied", None) is not None else layer.weight  # type: ignore[assignment]
        products = 2 * output.numel() * math.prod(weight.shape[1:])
        total += products
        if torch.is_grad_enabled():
            total += products * (weight.requires_grad + inputs[0].requires_grad)

    for member in state.networks().values():
        for layer in member.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.register_forward_hook(count)
    if network == "D":
        images = torch.zeros(config.train.batch, 3, 16, 16)
        updater.update_discriminator(0, images, torch.zeros(config.train.batch, dtype=torch.int64))
    else:
        updater.update_generator()
    return total


def test_counted_work_is_that_of_a_count_by_hand() -> None:
    found = bench.measure(SMALL, seconds=0.1, most=3)
    assert found["flop_D"] == counted_by_hand(SMALL, "D")
    assert found["flop_G"] == counted_by_hand(SMALL, "G")
    assert found["flop_step"] == 2 * found["flop_D"] + found["flop_G"]


def test_the_numbers_fit_together() -> None:
    began = time.perf_counter()
    found = bench.measure(SMALL, seconds=0.2, most=4)
    lasted = time.perf_counter() - began
    assert 3 <= found["timed_steps"] <= 4
    assert 0 < found["timed_steps"] * found["step_seconds"] < lasted
    assert found["images_per_second"] == pytest.approx(16 / found["step_seconds"])
    assert found["flop_per_second"] == pytest.approx(found["flop_step"] / found["compute_seconds"])
    assert found["of_matrix_rate"] == pytest.approx(found["flop_per_second"] / found["matrix_flop_per_second"])
    assert 1e8 < found["matrix_flop_per_second"] < 1e15
    assert 50 * 2**20 < found["peak_process_bytes"] < 2**40
    assert 0 <= found["waiting_share"] < 1
    assert found["loader_headroom"] > 0


@pytest.mark.slow
def test_a_slow_loader_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: ImageArray, indices: np.ndarray) -> np.ndarray:
        time.sleep(0.3)
        return self.images[indices]

    monkeypatch.setattr(ImageArray, "load_many", slow)
    found = bench.measure(SMALL, seconds=0.1, most=3)
    assert found["loader_images_per_second"] < 8 / 0.3
    assert found["waiting_share"] * found["step_seconds"] > 2 * 0.3  # two D steps
    assert found["images_per_second"] < 16 / 0.6


def test_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--model.ch", "4", "--train.batch", "4", "--seconds", "0.1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["preset"], found["batch"], found["d_steps"], found["data"]) == ("digits", 4, 1, "digits")


def test_the_table_of_a_preset_whose_files_were_not_given(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--model.ch", "4", "--train.batch", "4", "--data.workers", "0"]
    assert bench.main(["cifar10", *small, "--device", "cpu", "--seconds", "0.1"]) == 0
    shown = capsys.readouterr().out
    for words in ("images/s", "D step", "G step", "GFLOP", "GFLOP/s", "matrix product", "waiting", "peak memory"):
        assert words in shown
    assert "random pixels in memory" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cifar11"], "did you mean 'cifar10'"),
        (["--model.ch", "0"], "model.ch is 0"),
        (["cifar10", "--data.path", "nowhere-at-all"], "which does not exist"),
        (["--dry-run"], "--dry-run has no effect on the benchmark"),
        (["--secnds", "1"], "unknown option '--secnds'"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    found = bench.measure(Config(device="cuda", data=DataConfig(), model=SMALL.model), seconds=0.5)
    assert found["peak_gpu_bytes"] > 0
    assert 0 < found["of_matrix_rate"] < 1
