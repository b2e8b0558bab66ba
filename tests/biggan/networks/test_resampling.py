"""The shorter ways to resample and convolve are the same functions as the plain ones, to all gradients."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from torch.nn import functional as F

from biggan.config import ModelConfig, SpeedConfig
from biggan.networks import resampling
from biggan.networks.discriminator import Discriminator
from biggan.networks.generator import Generator
from biggan.networks.initialization import initialize
from biggan.networks.reparametrization import Conv2d
from biggan.networks.resampling import convolve_and_downsample, downsample, upsample, upsample_and_convolve

PAYS = resampling.is_faster_fused
FAST = {"narrow_skips": True, "fused_resampling": True, "channels_last": True}


@pytest.fixture(autouse=True)
def _fused_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """These networks are too small for it to pay."""
    monkeypatch.setattr(resampling, "is_faster_fused", lambda *_: True)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=random).requires_grad_()


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (4, 4)])
def test_fused_upsampling_is_upsampling_and_convolution(size: tuple[int, int]) -> None:
    x, weight, bias = drawn(3, 5, *size), drawn(7, 5, 3, 3, seed=1), drawn(7, seed=2)
    plain = F.conv2d(upsample(x), weight, bias, padding=1)
    torch.testing.assert_close(upsample_and_convolve(x, weight, bias), plain, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradgradcheck(upsample_and_convolve, (drawn(1, 2, 2, 3), drawn(2, 2, 3, 3), drawn(2)))


@pytest.mark.parametrize("size", [(2, 2), (4, 10), (8, 8)])
def test_fused_pooling_is_convolution_and_pooling(size: tuple[int, int]) -> None:
    x, weight, bias = drawn(3, 5, *size), drawn(7, 5, 3, 3, seed=1), drawn(7, seed=2)
    plain = downsample(F.conv2d(x, weight, bias, padding=1))
    torch.testing.assert_close(convolve_and_downsample(x, weight, bias), plain, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradgradcheck(convolve_and_downsample, (drawn(1, 2, 4, 2), drawn(2, 2, 3, 3), drawn(2)))


MODELS = {
    "biggan": {"resolution": 32, "ch": 4},
    "biggan with attention": {"resolution": 16, "ch": 8, "attention_G": [8], "attention_D": [8]},
    "biggan-deep": {"resolution": 32, "ch": 4, "family": "biggan-deep"},
    "bilinear": {"resolution": 16, "ch": 4, "upsampling": "bilinear"},
    "dilated": {"resolution": 16, "ch": 4, "dilation_G": 2, "dilation_D": 2},
    "without Spectral Normalization": {
        "resolution": 16,
        "ch": 4,
        "spectral_norm_G": False,
        "spectral_norm_D": False,
    },
}


# One by one with the plain model; with the others all at once, and one by one in the slow tests.
TOGETHER = [
    pytest.param(model, switch, marks=() if switch == "all" or model == "biggan" else pytest.mark.slow,
                 id=f"{model}-{switch}")
    for model in MODELS for switch in (*FAST, "all")
]  # fmt: skip


@pytest.mark.parametrize(("model", "switch"), TOGETHER)
@pytest.mark.parametrize("network", ["G", "D"])
def test_switch_keeps_the_function_and_its_gradients(network: str, model: str, switch: str) -> None:
    """Forward and every gradient: to 1e-10 in float64; in float32 to 1e-5, or to the plain network's own rounding."""
    config = ModelConfig(**MODELS[model])  # type: ignore[arg-type]
    fast = SpeedConfig(**(FAST if switch == "all" else {switch: True}))
    truth = plainly(network, model, torch.float64)
    assert worst_difference(played(network, config, fast, torch.float64), truth) < 1e-10
    own = worst_difference(plainly(network, model, torch.float32), truth)
    assert worst_difference(played(network, config, fast, torch.float32), truth) < max(1e-5, 3 * own)


@functools.cache
def plainly(network: str, model: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Without any switch; nobody writes into it."""
    return played(network, ModelConfig(**MODELS[model]), SpeedConfig(), dtype)  # type: ignore[arg-type]


def played(network: str, model: ModelConfig, speed: SpeedConfig, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Output of a drawn network on drawn inputs, and every gradient, that of the input among them."""
    net = (Generator if network == "G" else Discriminator)(model, speed)
    initialize(net, model.init, 0, network)
    net.to(dtype)
    random = torch.Generator().manual_seed(3)
    y = torch.arange(12) % model.classes
    shape = (12, net.z_dim) if network == "G" else (12, 3, model.resolution, model.resolution)
    x = torch.randn(shape, generator=random).to(dtype)  # type: ignore[arg-type]
    if speed.channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.to(memory_format=torch.channels_last) if x.ndim == 4 else x
    x.requires_grad_()
    out = net(x, y)
    weights = torch.randn(out.shape, generator=random).to(dtype)
    parameters = {"input": x, **dict(net.named_parameters())}
    gradients = torch.autograd.grad((out * weights).sum(), list(parameters.values()), allow_unused=True)
    found = {name: g.double() for name, g in zip(parameters, gradients, strict=True) if g is not None}
    return {"output": out.detach().double(), **found}


def worst_difference(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """Over the tensors, relative to the larger of a tensor's norm and 1e-6 of all gradients' norm."""
    total = torch.stack([g.norm() for name, g in wanted.items() if name != "output"]).norm()
    assert got.keys() == wanted.keys()
    return max(float((got[n] - g).norm() / max(g.norm(), 1e-6 * total)) for n, g in wanted.items())


def test_every_switch_is_off_by_default() -> None:
    assert set(dataclasses.asdict(SpeedConfig()).values()) == {False, "float32"}


def test_maps_of_few_pixels_are_convolved_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "is_faster_fused", PAYS)
    called = []
    for name in ("upsample_and_convolve", "convolve_and_downsample"):
        monkeypatch.setattr(resampling, name, lambda *_, name=name: called.append(name))
    up, down = (resampling.Resampling(kind, "nearest", SpeedConfig(fused_resampling=True)) for kind in ("up", "down"))
    narrow, wide = Conv2d(3, 4, 3, padding=1), Conv2d(3, 30000, 3, padding=1)
    for conv, shape, expected in (
        (narrow, (32, 3, 4, 4), True),
        (narrow, (31, 3, 4, 4), False),
        (narrow, (8, 3, 8, 8), True),
        (narrow, (7, 3, 8, 8), False),
        (wide, (32, 3, 4, 4), False),
        (wide, (8, 3, 8, 8), True),
    ):
        n, c, side, _ = shape
        for resample, maps in ((up.then, shape), (down.after, (n, c, 2 * side, 2 * side))):
            called.clear()
            resample(conv, torch.zeros(maps))
            assert bool(called) == expected, (shape, conv.weight.shape)
