"""Reduced precision: what runs in it and what does not, float16's loss scaling, and that runs stay exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tiny import TINY as TINY_OPTIONS
from tiny import assert_same_state
from torch import nn

from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from biggan.config import Config
from biggan.data.loader import training_batches
from biggan.data.sources.opening import open_source
from biggan.networks.batchnorm import BatchNorm, collecting
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from biggan.training.loss_scaling import LossScaler, step_unless
from biggan.training.state import TrainingState
from biggan.training.step import Updater

REDUCED = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PENALIZED = {"r1": 1.0, "gradient_penalty": 1.0, "orthogonal_G": 1e-3, "orthogonal_D": 1e-3}


@pytest.fixture(autouse=True)
def _start_without_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's first updates are usually skipped, until the scale has come down to where it fits."""
    monkeypatch.setattr(LossScaler, "START", 2.0**8)


def clones(state: TrainingState) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.tensors().items()}


def gradients(config: Config) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What observers see of both networks' first gradients, by parameter; and the statistics."""
    state, seen = TrainingState(config), {}

    def look(network: str, k: int) -> None:
        named = state.networks()[network].named_parameters()
        seen.update({f"{network}.{name}": p.grad.clone() for name, p in named if p.grad is not None})

    updater = Updater(config, state, lambda *_: None, look)
    stats = updater.update_discriminator(0, *next(training_batches(config, open_source(config), 0)))
    return seen, stats | updater.update_generator()


@pytest.mark.parametrize("precision", REDUCED)
def test_convolutions_are_reduced_and_the_rest_is_not(tiny: Callable[..., Config], precision: str) -> None:
    config = tiny(speed={"precision": precision}, regularizers=PENALIZED)
    state = TrainingState(config)
    updater = Updater(config, state, lambda *_: None, lambda *_: None)
    batch = next(training_batches(config, open_source(config), 0))
    outputs: dict[str, list[torch.dtype]] = {}
    for prefix, network in state.networks().items():
        for name, module in network.named_modules(prefix=prefix):
            module.register_forward_hook(lambda _, __, out, name=name: outputs.setdefault(name, []).append(out.dtype))
    stats = updater.update_discriminator(0, *batch) | updater.update_generator()
    reduced, full = REDUCED[precision], torch.float32
    assert outputs["G"] == [full, full]
    convolutions = [name for name, m in state.G.named_modules(prefix="G") if isinstance(m, nn.Conv2d)]
    assert convolutions
    assert all(outputs[name] == [reduced, reduced] for name in convolutions)
    # D's own forward is reduced, its two penalties' are not, G's update's is again; its logits never are
    convolutions = [name for name, m in state.D.named_modules(prefix="D") if isinstance(m, nn.Conv2d)]
    assert all(outputs[name] == [reduced, full, full, reduced] for name in convolutions)
    assert outputs["D.linear"] == outputs["D.embedding"] == [full] * 4
    assert {value.dtype for value in stats.values()} == {full}
    assert {p.grad.dtype for p in state.G.parameters()} == {full}


@pytest.mark.parametrize("precision", REDUCED)
def test_gradients_are_those_of_float32_but_for_rounding(tiny: Callable[..., Config], precision: str) -> None:
    """And penalties, which are computed outside, are float32's to the bit. Float16's are seen unscaled."""
    wanted, wanted_stats = gradients(tiny(regularizers=PENALIZED))
    got, stats = gradients(tiny(regularizers=PENALIZED, speed={"precision": precision}))
    for name in ("penalty/G_orthogonal", "penalty/D_orthogonal", "penalty/D_r1"):
        assert torch.equal(stats[name], wanted_stats[name])
    assert got.keys() == wanted.keys()
    for network in ("D", "G"):
        flat = [torch.cat([g.flatten() for n, g in found.items() if n[0] == network]) for found in (got, wanted)]
        difference = float((flat[0] - flat[1]).norm() / flat[1].norm())
        assert 0 < difference < {"bfloat16": 0.1, "float16": 0.05}[precision]  # Adam had amplified D's rounding for G


@pytest.mark.parametrize("dtype", REDUCED.values(), ids=REDUCED)
def test_batchnorm_computes_its_statistics_in_float32(dtype: torch.dtype) -> None:
    """Also where a mean far from zero would leave reduced statistics nothing of the variance."""
    random = torch.Generator().manual_seed(0)
    x = (torch.randn(8, 3, 6, 6, generator=random) + 100).to(dtype)
    layer = BatchNorm(3, eps=1e-4, momentum=0.1)
    with torch.no_grad():
        wanted = layer(x.float())
        plain = layer(x)
        with collecting(layer):
            collected = layer(x)
            assert layer.collected is not None
            mean, variance = layer.collected.mean, layer.collected.variance
    assert plain.dtype == collected.dtype == dtype
    assert torch.equal(plain, collected)
    torch.testing.assert_close(plain.float(), wanted, rtol=torch.finfo(dtype).eps, atol=1e-3)
    flat = x.double().transpose(0, 1).flatten(1)
    assert mean is not None
    torch.testing.assert_close(mean.double(), flat.mean(dim=1), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), flat.var(dim=1, correction=0), rtol=1e-5, atol=0)


def step(updater: Updater, batches: Iterator) -> dict[str, torch.Tensor]:
    """One whole step as the trainer does it."""
    found = updater.update_discriminator(0, *next(batches)) | updater.update_generator()
    updater.state.ema.update(updater.state.G, updater.state.step + 1, found.get("skipped/G"))
    updater.state.step += 1
    return found


def test_skipped_updates_change_nothing_but_the_scale(tiny: Callable[..., Config]) -> None:
    """Neither weights nor moments, averages, Spectral Normalization's or clamping's vectors, or statistics."""
    clamp = {"value": 0.5, "mode": "forward"}
    model = {"norm_D": "batch", "clamp_G": clamp, "clamp_D": {**clamp, "mode": "project"}}
    config = tiny(speed={"precision": "float16"}, model=model, train={"d_steps": 1})
    state = TrainingState(config)
    updater = Updater(config, state, lambda *_: None, lambda *_: None)
    batches = training_batches(config, open_source(config), 0)
    for _ in range(3):  # past `ema.start`, so that the average is one
        assert not any(value for name, value in step(updater, batches).items() if name.startswith("skipped/"))
    for scaler in state.loss_scalers.values():
        scaler.scale.fill_(scaler.HIGHEST)
    before = clones(state)
    stats = step(updater, batches)
    assert stats["skipped/G"] == stats["skipped/D"] == 1
    assert not stats["gradient_norm/G"].isfinite()  # recorded as it is
    assert stats["loss/G"].isfinite()
    scales = {f"loss_scale.{name}.{key}" for name in "GD" for key in ("scale", "finite_updates")}
    after = clones(state)
    assert_same_state(*({name: t for name, t in s.items() if name not in scales} for s in (before, after)))
    assert after["loss_scale.G.scale"] == after["loss_scale.D.scale"] == 2.0**39
    assert before["loss_scale.G.finite_updates"] == 3
    assert after["loss_scale.G.finite_updates"] == 0
    state.loss_scalers["G"].scale.fill_(2.0**8)
    stats = step(updater, batches)  # D's update is skipped, G's is not
    assert stats["skipped/D"] == 1
    assert stats["skipped/G"] == 0
    moved = {name.split(".")[0] for name, t in state.tensors().items() if not torch.equal(t, after[name])}
    assert moved >= {"G", "G_ema", "optim_G"}
    assert "optim_D" not in moved


@pytest.mark.parametrize("frozen", [pytest.param("G", marks=pytest.mark.slow), "D"])
def test_the_scale_of_a_frozen_network_falls_too(tiny: Callable[..., Config], frozen: str) -> None:
    """Else its gradients, which are recorded, would be infinite for ever."""
    config = tiny(speed={"precision": "float16"}, train={"d_steps": 1, "freeze": frozen})
    state = TrainingState(config)
    updater = Updater(config, state, lambda *_: None, lambda *_: None)
    batches = training_batches(config, open_source(config), 0)
    state.loss_scalers[frozen].scale.fill_(2.0**40)
    update = updater.update_generator if frozen == "G" else lambda: updater.update_discriminator(0, *next(batches))
    before = clones(state)
    norms = []
    while not norms or not norms[-1].isfinite():
        norms.append(update()[f"gradient_norm/{frozen}"])
        assert len(norms) < 60
    after = clones(state)
    assert len(norms) > 10
    assert after[f"loss_scale.{frozen}.scale"] == 2.0 ** (40 - (len(norms) - 1))
    still = [name for name in before if name.startswith((f"{frozen}.", f"optim_{frozen}."))]
    assert_same_state(*({name: tensors[name] for name in still} for tensors in (before, after)))


def test_scale_doubles_after_enough_finite_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossScaler, "INTERVAL", 3)
    scaler, weight = LossScaler("cpu"), nn.Parameter(torch.ones(2))
    adam = torch.optim.Adam([weight], fused=True)
    scales = []
    for gradient in (1.0, 1.0, float("nan"), 1.0, 1.0, 1.0, float("inf")):
        weight.grad = torch.tensor([1.0, gradient])
        skip = scaler.unscale([weight.grad])
        step_unless(skip, adam)
        scaler.move(skip)
        scales.append(float(scaler.scale) / scaler.START)
    assert scales == [1, 1, 0.5, 0.5, 0.5, 1, 0.5]
    assert float(adam.state[weight]["step"]) == 5
    assert weight.isfinite().all()
    for _ in range(100):
        scaler.move(torch.ones(()))
    assert scaler.scale == scaler.LOWEST  # not 0, from which no doubling leads back


def test_the_scale_has_an_upper_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 200 doublings a finite gradient is still used, and one halving lowers the scale; from inf too."""
    monkeypatch.setattr(LossScaler, "INTERVAL", 1)
    scaler = LossScaler("cpu")
    for _ in range(200):
        scaler.move(torch.zeros(()))
    assert scaler.scale == scaler.HIGHEST == 2.0**40
    gradient = 3.0 * scaler.scale[None]
    assert scaler.unscale([gradient]) == 0
    assert gradient == 3
    scaler.move(torch.ones(()))
    assert scaler.scale == 2.0**39
    scaler.scale.fill_(torch.inf)  # as a checkpoint from before there was a bound may hold it
    for expected in (40, 39):
        scaler.move(torch.ones(()))
        assert scaler.scale == 2.0**expected


def test_a_skipped_update_is_recorded_and_is_no_event(tiny: Callable, train: Callable, tmp_path: Path) -> None:
    class Overflow:
        """Sets a scale at which every gradient overflows, before the second step."""

        def on_start(self, trainer: object) -> None:
            self.trainer, self.seen = trainer, []

        def after_step(self, step: int, stats: dict[str, float]) -> None:
            self.seen.append((stats["skipped/G"], stats["skipped/D"]))
            if step == 1:
                self.trainer.state.loss_scalers["G"].scale.fill_(2.0**60)

        def __getattr__(self, name: str) -> Callable:
            return lambda *_: None

    watch = Overflow()
    config = tiny(steps=3, speed={"precision": "float16"}, train={"on_non_finite": "stop"})
    trainer = train(config, tmp_path / "run", watch)
    assert watch.seen[:2] == [(0, 0), (1, 0)]
    assert trainer.state.step == 3
    assert "non_finite" not in [event["event"] for event in trainer.run.events()]


@pytest.mark.parametrize("precision", [pytest.param("bfloat16", marks=pytest.mark.slow), "float16"])
def test_stopped_and_resumed_equals_never_stopped(tmp_path: Path, precision: str) -> None:
    options = [*TINY_OPTIONS, f"--speed.precision={precision}", "--checkpoint.every=2", "--quiet"]
    assert train_main(["--out", str(tmp_path / "whole"), "--steps=4", *options]) == 0
    assert train_main(["--out", str(tmp_path / "parts"), "--steps=2", *options]) == 0
    assert train_main(["--resume", str(tmp_path / "parts"), "--steps=4", "--quiet"]) == 0
    final = [read_checkpoint(checkpoint_paths(tmp_path / run)[-1]).tensors for run in ("whole", "parts")]
    assert_same_state(*final)
    assert ("loss_scale.G.scale" in final[0]) == (precision == "float16")
    picture = tmp_path / "grid.png"
    assert sample_main(["--ckpt", str(tmp_path / "whole"), "--standing-passes=1", "--out", str(picture)]) == 0
    assert picture.exists()
    # The arithmetic is the run's own; who insists may change it, and scaling then starts afresh or is left out.
    other = ["--resume", str(tmp_path / "parts"), "--steps=5", "--quiet"]
    changed = "float16" if precision == "bfloat16" else "float32"
    assert train_main([*other, f"--speed.precision={changed}"]) == 2
    assert train_main([*other, f"--speed.precision={changed}", "--allow-change"]) == 0
