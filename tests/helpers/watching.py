"""A training loop run twice, without and with `spectra.watch`: the same bits, and the norms that the loop saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import spectra

Norms = list[dict[str, float]]
"""For each step, the length of each gradient by parameter name, where the loop computed it."""


class Unwatched:
    """Stands where a monitor does."""

    def step(self, *_: Any, **__: Any) -> None:
        """Nothing."""


def watching(networks: Any, run: Path | None, **settings: Any) -> Any:
    """A context with `spectra.watch`, or, without a run, with a monitor that does nothing."""
    return nullcontext(Unwatched()) if run is None else spectra.watch(networks, run, **settings)


def gradient_norms(network: nn.Module, name: str = "model", factor: float = 1.0) -> dict[str, float]:
    """The length of each gradient, in float64."""
    there = {f"{name}.{path}": p.grad for path, p in network.named_parameters() if p.grad is not None}
    return {path: gradient.double().norm().item() / factor for path, gradient in there.items()}


def state_of(networks: Iterable[nn.Module], optimizers: Iterable[torch.optim.Optimizer] = ()) -> dict[str, Any]:
    """Copies of all weights, gradients, moments and the random state."""
    found: dict[str, Any] = {"random": torch.get_rng_state()}
    for i, network in enumerate(networks):
        found |= {f"{i}.{name}": tensor.clone() for name, tensor in network.state_dict().items()}
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        found |= {f"{i}.{name}.grad": gradient.clone() for name, gradient in gradients.items()}
    for i, optimizer in enumerate(optimizers):
        for j, moments in optimizer.state_dict()["state"].items():
            found |= {f"{i}.{j}.{name}": torch.as_tensor(value).clone() for name, value in moments.items()}
    return found


def train_twice(train: Callable[[Path | None], tuple[Mapping[str, Any], Norms]], run: Path) -> dict[str, pd.DataFrame]:
    """Train without and with a monitor that measures into `run`; both end alike to the bit, and the recorded gradients
    are those that the loop saw."""
    plain, seen = train(None)
    watched, seen_again = train(run)
    assert plain.keys() == watched.keys()
    different = [name for name in plain if not torch.equal(plain[name], watched[name])]
    assert different == []
    assert seen == seen_again
    frames = spectra.load(run)
    assert_recorded(frames, seen)
    return frames


def assert_recorded(frames: Mapping[str, pd.DataFrame], seen: Norms) -> None:
    """The gradients of every step are those that were seen: no other parameter has one, and no other step."""
    gradients = frames["gradients"].dropna(subset="gradient_norm")
    recorded = {(row.step, row.parameter): row.gradient_norm for row in gradients.itertuples()}
    expected = {(step, name): norm for step, norms in enumerate(seen, 1) for name, norm in norms.items()}
    assert recorded == pytest.approx(expected, rel=1e-6)
