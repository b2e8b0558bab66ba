"""What a run would need, found without building full-size weights: parameters and memory, on the meta device."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from biggan.config import Config
from biggan.discriminator import Discriminator
from biggan.generator import Generator
from biggan.gradient_penalties import Batch, gradient_penalties, strengths
from biggan.starts import steered_layers


def estimate(config: Config) -> dict[str, Any]:
    """`parameters` (G, D), `memory` in bytes by what it holds, and `memory_bytes`, the peak of one process.

    Weights, gradients, Adam's two moments and the average are exact. Activations are the most of three things: what
    autograd keeps for one micro-batch of D's update, the same for G's, and the largest moment of the forward that
    makes all of D's fake images at once. The allocator's and the kernels' own memory comes on top.
    """
    with torch.device("meta"):
        G, D = Generator(config.model, config.speed), Discriminator(config.model, config.speed)
    for name, network in (("G", G), ("D", D)):
        steered_layers(config, name, network)  # a name that is wrong is found here as in a run
    counts = {"G": _count(G), "D": _count(D)}
    weights = 4 * (counts["G"] + counts["D"])
    memory = {
        "weights": weights,
        "gradients": weights,
        "adam_moments": 2 * weights,
        "average": 4 * counts["G"],
        "activations": max(_saved_by_D(config, D), _saved_by_G(config, G, D), _peak_of_fakes(config, G)),
    }
    return {"parameters": counts, "memory": memory, "memory_bytes": sum(memory.values())}


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _saved_by_D(config: Config, D: Discriminator) -> int:
    """D's update sees fake and real images in one forward; a gradient penalty makes a second one."""
    count = config.train.batch // config.train.accumulate
    half = torch.empty(count, 3, config.model.resolution, config.model.resolution, device="meta")
    batch = Batch(half, _labels(count), half, _labels(count), mix=torch.empty(count, device="meta"))
    images, labels, _ = batch.both
    with _SavedTensors() as saved:
        D(images, labels)
        gradient_penalties(D, batch, strengths(config))
    return saved.bytes


def _saved_by_G(config: Config, G: Generator, D: Discriminator) -> int:
    count = config.train.batch // config.train.accumulate
    with _SavedTensors() as saved:
        D(G(torch.empty(count, G.z_dim, device="meta"), _labels(count)), _labels(count))
    return saved.bytes


def _peak_of_fakes(config: Config, G: Generator) -> int:
    """D's update makes its whole batch of fakes in one forward without a graph."""
    count = config.train.batch
    with torch.no_grad(), _LiveTensors() as live:
        G(torch.empty(count, G.z_dim, device="meta"), _labels(count))
    return live.peak


def _labels(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64, device="meta")


class _SavedTensors:
    """Adds up the storage of what autograd keeps for the backward pass, parameters excepted."""

    def __init__(self) -> None:
        self.storages: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            self.storages[storage._cdata] = storage
        return tensor

    def __enter__(self) -> _SavedTensors:
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)


class _LiveTensors(TorchDispatchMode):
    """Follows how much memory the results of operations hold at a time; `peak` is the most, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}  # storage -> how many tensors share it
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor)
        return result

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.live:
            self.now += size
            self.peak = max(self.peak, self.now)
        self.live[key] = self.live.get(key, 0) + 1
        weakref.finalize(tensor, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.live[key] -= 1
        if not self.live[key]:
            del self.live[key]
            self.now -= size
