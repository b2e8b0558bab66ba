"""Estimates a run's parameters and memory without building full-size weights."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from biggan.config import Config
from biggan.distributed.ranks import BatchShard
from biggan.networks import build_networks
from biggan.networks.autocast import autocast
from biggan.networks.base import DiscriminatorNetwork, GeneratorNetwork
from biggan.networks.sigma_control import sigma_controlled_layers
from biggan.networks.spectral_norm import normalized
from biggan.objective.gradient_penalties import Batch, gradient_penalties, strengths

SPARE = 0.1
"""The share of a GPU's memory left free for the allocator and the kernels, which are not estimated."""


def estimate(config: Config, processes: int = 1) -> dict[str, Any]:
    """`parameters` (G, D), `memory` in bytes by what it holds, and `memory_bytes`, the peak of one of the processes.

    Weights, gradients, Adam's two moments and the average are exact. Activations are the most of three things: what
    autograd keeps for one micro-batch of D's update, the same for G's, and the largest moment of the forward that
    makes all of D's fake images at once; a reduced precision reduces what a CPU's autocast does. The allocator's and
    the kernels' own memory comes on top. Raises `UserError` where there are more processes than images in a
    micro-batch.
    """
    share = BatchShard(config.train.batch, config.train.accumulate, of=(0, processes))  # rank 0's is the largest
    micro = len(share.rows) // config.train.accumulate
    with _nowhere(config):
        return _estimate(config, processes, len(share.rows), micro)


def _estimate(config: Config, processes: int, rows: int, micro: int) -> dict[str, Any]:
    G, D = build_networks(config)
    for name, network in (("G", G), ("D", D)):
        sigma_controlled_layers(config, name, network)  # raises for a wrong layer name, as in a run
    counts = {"G": _count(G), "D": _count(D)}
    weights = 4 * (counts["G"] + counts["D"])
    memory = {
        "weights": weights,
        "gradients": weights,
        "adam_moments": 2 * weights,
        "average": 4 * counts["G"],
        "activations": max(
            _saved_by_D(config, D, micro), _saved_by_G(config, G, D, micro), _peak_of_fakes(config, G, rows)
        ),
    }
    if processes > 1 and config.train.accumulate > 1:  # until the last micro-batch they are not where they are summed
        memory["gradients_to_be_summed"] = 4 * max(counts.values())
    return {"parameters": counts, "memory": memory, "memory_bytes": sum(memory.values())}


@contextmanager
def _nowhere(config: Config) -> Iterator[None]:
    """Tensors made inside have shapes and types and no memory. autocast has no rules for the meta device."""
    with ExitStack() as stack:
        if config.speed.precision != "float32":
            from torch._subclasses.fake_tensor import FakeTensorMode

            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(torch.device("meta" if config.speed.precision == "float32" else "cpu"))
        yield


def _reduced(config: Config) -> AbstractContextManager:
    return autocast(config.speed.precision, torch.device("cpu"))


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def largest_micro_batch(config: Config, card: int, processes: int = 1) -> tuple[int, int, int] | None:
    """The largest micro-batch, over all processes, with which the configuration fits on cards of `card` bytes.

    Returns it with its `train.accumulate` and the memory of one process; None where not even the smallest fits. `SPARE`
    of the card is left free. Micro-batches are of equal size, so only divisors of the batch are tried.
    """
    batch = config.train.batch
    cuts = [cut for cut in range(1, batch // processes + 1) if batch % cut == 0]

    limit = card * (1 - SPARE)
    for cut in cuts:  # in this order: with uneven shares a finer cut may take more
        train = dataclasses.replace(config.train, accumulate=cut)
        found = estimate(dataclasses.replace(config, train=train), processes)
        if found["memory_bytes"] <= limit:
            return batch // cut, cut, found["memory_bytes"]
        if found["memory_bytes"] - found["memory"]["activations"] > limit:  # which no cut makes smaller
            return None
    return None


def _saved_by_D(config: Config, D: DiscriminatorNetwork, count: int) -> int:
    """D's update sees fake and real images in one forward; a gradient penalty makes a second one."""
    half = torch.empty(count, 3, config.model.resolution, config.model.resolution)
    batch = Batch(half, _labels(count), half, _labels(count), mix=torch.empty(count))
    images, labels, _ = batch.both
    with _SavedTensors(_blocks(D) if config.train.recompute else ()) as saved, normalized(D, iterate=False):
        with _reduced(config):
            D(images, labels)
        gradient_penalties(D, batch, strengths(config))
    return saved.bytes


def _saved_by_G(config: Config, G: GeneratorNetwork, D: DiscriminatorNetwork, count: int) -> int:
    with (
        _SavedTensors([*_blocks(G), *_blocks(D)] if config.train.recompute else ()) as saved,
        normalized(D, iterate=False, grad=False),
        normalized(G, iterate=False),
        _reduced(config),
    ):
        D(G(torch.empty(count, G.z_dim), _labels(count)), _labels(count))
    return saved.bytes


def _peak_of_fakes(config: Config, G: GeneratorNetwork, count: int) -> int:
    """D's update makes its whole batch of fakes in one forward without a graph."""
    with torch.no_grad(), LiveTensors() as live, normalized(G, iterate=False), _reduced(config):
        G(torch.empty(count, G.z_dim), _labels(count))
    return live.peak


def _blocks(network: nn.Module) -> Iterable[nn.Module]:
    return network.get_submodule("blocks").children()


def _labels(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64)


class _SavedTensors:
    """Adds up the storage of what autograd keeps for the backward pass, parameters excepted.

    Of the blocks that are `computed_again` only the inputs are kept, and the inside of one at a time.
    """

    def __init__(self, computed_again: Iterable[nn.Module] = ()) -> None:
        self.kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice
        self.inside: dict[nn.Module, dict[int, torch.UntypedStorage]] = {block: {} for block in computed_again}
        self.block: nn.Module | None = None
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        inside = [sum(s.nbytes() for key, s in found.items() if key not in self.kept) for found in self.inside.values()]
        return sum(storage.nbytes() for storage in self.kept.values()) + max(inside, default=0)

    def _pack(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            self._hold(tensor, self.kept if self.block is None else self.inside[self.block])
        return tensor

    @staticmethod
    def _hold(tensor: Tensor, where: dict[int, torch.UntypedStorage]) -> None:
        storage = tensor.untyped_storage()
        where[storage._cdata] = storage

    def _enter_block(self, block: nn.Module, inputs: tuple[Tensor | None, ...]) -> None:
        self.block = block
        for tensor in inputs:
            if tensor is not None:
                self._hold(tensor, self.kept)

    def _leave_block(self, block: nn.Module, inputs: object, output: object) -> None:
        self.block = None

    def __enter__(self) -> _SavedTensors:
        self.handles = [block.register_forward_pre_hook(self._enter_block) for block in self.inside]
        self.handles += [block.register_forward_hook(self._leave_block) for block in self.inside]
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)
        for handle in self.handles:
            handle.remove()


class LiveTensors(TorchDispatchMode):
    """Follows how much memory the results of operations hold at a time; `peak` is the most, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}  # storage -> how many tensors share it
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor, given)
        return result

    def _follow(self, tensor: Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in given and key not in self.live:  # of a tensor from before: a view of it, or itself
            return
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
