"""Whole training steps with every gradient noted, on one process or as one of several ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from ranks import on_ranks
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.config import Config, from_dict
from biggan.data.loader import training_batches
from biggan.data.sources.opening import open_source
from biggan.distributed.ranks import rank, synchronized_batchnorm, world_size
from biggan.networks import cross_replica
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

    first: of sum(sin(slope * BN(x))) in x; alone: the same, where no second one is wanted. second, second_slope: of the
    sum of first^2, in x and in slope (C,), as R1 takes them; the latter is this rank's summand.
    """
    layer = BatchNorm(x.shape[1], eps=1e-4, momentum=1.0).to(x.dtype)
    x, slope = x.clone().requires_grad_(), slope.clone().requires_grad_()
    with synchronized_batchnorm(), collecting(layer):
        out = layer(x)
        loss = (slope[:, None, None] * out).sin().sum()
        (alone,) = torch.autograd.grad(loss, x, retain_graph=True)
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        second, second_slope = torch.autograd.grad(first.square().sum(), (x, slope))
        move_running_statistics(layer)
    found = {"out": out, "alone": alone, "first": first, "second": second, "second_slope": second_slope}
    found |= {"mean": layer.running_mean, "variance": layer.running_var}
    return {name: tensor.detach() for name, tensor in found.items()}


@contextmanager
def kernels_on_a_cpu() -> Iterator[None]:
    """The kernels of torch's SyncBatchNorm, as torch's schema has them and its own module uses them, and their use."""

    def stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(x.double(), dim=(0, 2, 3), correction=0)
        return mean.to(x.dtype), (variance + eps).rsqrt().to(x.dtype)

    def gather_stats(
        x: Tensor, means: Tensor, scales: Tensor, _1: None, _2: None, _3: float, eps: float, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        shares = (counts / counts.sum())[:, None]
        mean = (shares * means).sum(dim=0)
        variance = (shares * (scales.pow(-2) - eps + (means - mean).square())).sum(dim=0)
        return mean, (variance + eps).rsqrt()

    def elemt(x: Tensor, _1: None, _2: None, mean: Tensor, scale: Tensor, eps: float) -> Tensor:
        return (x - mean[:, None, None]) * scale[:, None, None]

    def backward_reduce(
        g: Tensor, x: Tensor, mean: Tensor, scale: Tensor, _: None, input_g: bool, weight_g: bool, bias_g: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        none = g.new_empty(0)
        return g.sum(dim=(0, 2, 3)), (g * (x - mean[:, None, None])).sum(dim=(0, 2, 3)), none, none

    def backward_elemt(
        g: Tensor, x: Tensor, mean: Tensor, scale: Tensor, _: None, sum_g: Tensor, sum_g_x: Tensor, counts: Tensor
    ) -> Tensor:
        assert counts.dtype == torch.int32
        assert len(counts) == world_size()
        centred, total = x - mean[:, None, None], counts.sum()
        slope = (scale.square() * sum_g_x / total)[:, None, None]
        return (g - (sum_g / total)[:, None, None] - centred * slope) * scale[:, None, None]

    kernels = {
        "stats": stats, "gather_stats_with_counts": gather_stats, "elemt": elemt,
        "backward_reduce": backward_reduce, "backward_elemt": backward_elemt,
    }  # fmt: skip
    library = torch.library.Library("aten", "IMPL")
    for name, kernel in kernels.items():
        library.impl(f"batch_norm_{name}", kernel, "CPU")
    try:
        with mock.patch.object(cross_replica, "_has_kernels", return_value=True):
            yield
    finally:
        library._destroy()


def play_jobs(path: Path) -> None:
    """One rank's part: `first_steps` of every run and `normalized_with_derivatives` of every map in the file `path`.

    The results go beside it.
    """
    jobs = torch.load(path, weights_only=True)
    found: dict[str, Any] = {name: first_steps(**job) for name, job in jobs["runs"].items()}
    for name, (x, slope) in jobs["maps"].items():
        with kernels_on_a_cpu() if name.startswith("kernels") else nullcontext():
            found[name] = normalized_with_derivatives(x.tensor_split(world_size())[rank()], slope)
    torch.save(found, path.with_suffix(f".{rank()}"))


def on_several(ranks: int, jobs: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """What each rank made of `jobs` ("runs" and "maps"), by their names."""
    path = folder / f"jobs{ranks}"
    torch.save(jobs, path)
    on_ranks(ranks, play_jobs, path)
    return [torch.load(path.with_suffix(f".{rank}"), weights_only=True) for rank in range(ranks)]
