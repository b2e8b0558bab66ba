"""Weights normalized together are those normalized one by one, with their gradients and the vectors they leave."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from biggan.config import Config, ModelConfig, SpeedConfig, from_dict
from biggan.networks.discriminator import Discriminator
from biggan.networks.generator import Generator
from biggan.networks.initialization import initialize
from biggan.networks.spectral_norm import SpectrallyNormalized, normalized
from biggan.training.state import TrainingState

MODELS = {
    "biggan": {"resolution": 16, "ch": 4},
    "clamped and with WeightNorm": {"resolution": 16, "ch": 4, "norm_G": "weight", "clamp_G": {"value": 0.5}},
    "Spectral Normalization of G alone": {"resolution": 16, "ch": 4, "spectral_norm_D": False},
}
Made = dict[str, torch.Tensor]


def network_of(
    kind: str, model: ModelConfig, *, batched: bool, dtype: torch.dtype, layout: torch.memory_format
) -> nn.Module:
    make = Generator if kind == "G" else Discriminator
    network = make(model, SpeedConfig(batched_power_iteration=batched))
    initialize(network, "normal", 0, kind)
    return network.to(dtype).to(memory_format=layout)  # type: ignore[call-overload]


def made(network: nn.Module, *, iterate: bool) -> Made:
    """The weights in use in a third update, and the raw ones' gradients after two backwards (accumulation)."""
    random = torch.Generator().manual_seed(1)
    found: Made = {}
    for _ in range(3):
        with normalized(network, iterate=iterate):
            layers = {n: m for n, m in network.named_modules() if getattr(m, "applied", None) is not None}
            weights = {name: layer.applied for name, layer in layers.items()}
    found |= {f"{name} in use": weight.detach() for name, weight in weights.items()}
    if not weights:
        return found
    for keep in (True, False):
        drawn = [torch.randn(w.shape, generator=random, dtype=torch.float64).to(w) for w in weights.values()]
        torch.autograd.backward(list(weights.values()), drawn, retain_graph=keep)
    found |= {f"{n} gradient": p.grad for n, p in network.named_parameters() if p.grad is not None}
    return found | {f"{n}.u": m.u for n, m in network.named_modules() if isinstance(m, SpectrallyNormalized)}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["32", "64"])
@pytest.mark.parametrize("iterate", [True, False])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["G", "D"])
def test_together_as_one_by_one(
    kind: str, model: str, iterate: bool, dtype: torch.dtype, most: float, layout: torch.memory_format
) -> None:

    config = from_dict(MODELS[model], ModelConfig)
    plain = made(network_of(kind, config, batched=False, dtype=dtype, layout=torch.contiguous_format), iterate=iterate)
    fast = made(network_of(kind, config, batched=True, dtype=dtype, layout=layout), iterate=iterate)
    assert fast.keys() == plain.keys()
    assert len(plain) > 3 or model != "biggan"
    for name, wanted in plain.items():
        assert float((fast[name] - wanted).norm()) <= most * float(wanted.norm()), name


def test_steps_with_penalties_and_accumulation_stay_close(tiny: Callable[..., Config], play: Callable) -> None:
    """The derivative is one of the first order: a gradient penalty's double backward does not go through it."""
    changes = {"train": {"accumulate": 2}, "regularizers": {"r1": 1.0, "gradient_penalty": 1.0}, "steps": 1}
    states = {}
    for batched in (False, True):
        state, stats = play(tiny(**changes, speed={"batched_power_iteration": batched}))
        states[batched] = state.tensors(), stats
    plain, fast = states[False][0], states[True][0]
    matrices = [name for name in plain if name.endswith((".u", ".weight.exp_avg_sq"))]
    assert matrices
    for name in matrices:
        assert float((fast[name] - plain[name]).norm()) <= 1e-3 * float(plain[name].norm()), name
    for name, value in states[False][1][0].items():
        assert states[True][1][0][name] == pytest.approx(value, rel=1e-3)


def test_frozen_and_evaluated_networks_stand_still(tiny: Callable[..., Config], play: Callable) -> None:
    config = tiny(speed={"batched_power_iteration": True}, train={"freeze": "D"}, steps=2)
    before = TrainingState(config).tensors()
    after = play(config)[0].tensors()
    vectors = [name for name in before if name.endswith(".u") and name.startswith("D.")]
    assert vectors
    assert all(torch.equal(before[name], after[name]) for name in vectors)
    assert not torch.equal(before["G.linear.u"], after["G.linear.u"])
