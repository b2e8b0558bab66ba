"""Whole training steps with every gradient noted, on one process or as one of several ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ranks import on_ranks
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.config import Config, from_dict
from biggan.data.loader import training_batches
from biggan.data.sources.opening import open_source
from biggan.distributed.ranks import rank, synchronized_batchnorm, world_size
from biggan.networks.batchnorm import BatchNorm, collecting, move_running_statistics
from biggan.run.directory import RunDirectory
from biggan.training.optimizers import make_adam
from biggan.training.state import TrainingState
from biggan.training.trainer import Trainer

Tensors = dict[str, Tensor]


def make_state(config: Config, dtype: torch.dtype) -> TrainingState:
    """A new state in float32 or float64."""
    state = TrainingState(config)
    if dtype != torch.float32:
        for network in (state.G, state.D, state.ema.network):
            network.to(dtype)
        state.optimizers = {"G": make_adam(state.G, config.optim.G), "D": make_adam(state.D, config.optim.D)}
        state.warm_starts.vectors = {name: vectors.to(dtype) for name, vectors in state.warm_starts.vectors.items()}
    return state


def copied(tensors: Tensors) -> Tensors:
    """Tensors that no later step changes."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


class Pooled(nn.Module):
    """Features that cost nothing: what is left of an image at 2x2."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, R, R) -> (N, 12)."""
        return F.adaptive_avg_pool2d(x, 2).flatten(1)


class Noted:
    """A trainer whose gradients are kept: `gradients[step][network, k]` by parameter."""

    def __init__(self, values: dict[str, Any], dtype: torch.dtype) -> None:
        self.config = from_dict(values)
        self.state = make_state(self.config, dtype)
        self.trainer = Trainer(self.config, self.state, open_source(self.config), RunDirectory(Path("nowhere")), [])
        self.trainer.updater.after_backward = self._note
        self.gradients: dict[tuple[str, int], Tensors] = {}

    def _note(self, network: str, k: int) -> None:
        parameters = self.state.networks()[network].named_parameters()
        self.gradients[network, k] = {name: p.grad.clone() for name, p in parameters if p.grad is not None}

    def step(self) -> tuple[dict[tuple[str, int], Tensors], dict[str, float]]:
        """The gradients and the numbers of the next step."""
        self.gradients = {}
        stats = self.trainer.train_step(training_batches(self.config, self.trainer.source, self.state.step))
        return self.gradients, stats


def first_steps(
    values: dict[str, Any], dtype: torch.dtype, steps: int = 3, starts: list[Tensors] | None = None
) -> dict[str, Any]:
    """Each of the first steps, from `starts` where they are given: gradients, numbers, the state before it.

    And the state after all of them: where `starts` are given, in one go from the first.
    """
    noted, whole = Noted(values, dtype), Noted(values, dtype)
    found: dict[str, Any] = {"gradients": [], "stats": [], "starts": []}
    for step in range(steps):
        if starts is not None:
            noted.state.load(starts[step], step)
        found["starts"].append(copied(noted.state.tensors()))
        gradients, stats = noted.step()
        found["gradients"].append(gradients)
        found["stats"].append(stats)
        if starts is not None:
            whole.step()
    return found | {"end": copied((noted if starts is None else whole).state.tensors())}


def normalized_with_derivatives(x: Tensor, slope: Tensor) -> dict[str, Tensor]:
    """BatchNorm of this rank's images x (N, C, H, W), with the first and second derivatives of sums over ranks.

    first: of sum(sin(slope * BN(x))) in x. second, second_slope: of the sum of first^2, in x and in slope (C,), as R1
    takes them; the latter is this rank's summand.
    """
    layer = BatchNorm(x.shape[1], eps=1e-4, momentum=1.0).to(x.dtype)
    x, slope = x.clone().requires_grad_(), slope.clone().requires_grad_()
    with synchronized_batchnorm(), collecting(layer):
        out = layer(x)
        (first,) = torch.autograd.grad((slope[:, None, None] * out).sin().sum(), x, create_graph=True)
        second, second_slope = torch.autograd.grad(first.square().sum(), (x, slope))
        move_running_statistics(layer)
    found = {"out": out, "first": first, "second": second, "second_slope": second_slope}
    found |= {"mean": layer.running_mean, "variance": layer.running_var}
    return {name: tensor.detach() for name, tensor in found.items()}


def play_jobs(path: Path) -> None:
    """One rank's part: `first_steps` of every run and `normalized_with_derivatives` of every map in the file `path`.

    The results go beside it.
    """
    jobs = torch.load(path, weights_only=True)
    found: dict[str, Any] = {name: first_steps(**job) for name, job in jobs["runs"].items()}
    for name, (x, slope) in jobs["maps"].items():
        found[name] = normalized_with_derivatives(x.tensor_split(world_size())[rank()], slope)
    torch.save(found, path.with_suffix(f".{rank()}"))


def on_several(ranks: int, jobs: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """What each rank made of `jobs` ("runs" and "maps"), by their names."""
    path = folder / f"jobs{ranks}"
    torch.save(jobs, path)
    on_ranks(ranks, play_jobs, path)
    return [torch.load(path.with_suffix(f".{rank}"), weights_only=True) for rank in range(ranks)]
