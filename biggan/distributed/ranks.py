"""Several processes that train one model: ranks, each one's share of a batch, sums over ranks with their gradients.

Every rank holds a whole copy of the state and makes the same update from the same summed gradient, so that copies stay
equal bit for bit without being sent. On one process all of it is a no-op.

Gradients are summed by `sum_gradients` after the backward pass, and not by torch's DistributedDataParallel. DDP lays
its buckets out anew after the first backward pass of every session, by the order in which gradients arrived, and from
three ranks on the order in which numbers are added up depends on their place in a bucket: a resumed run's first step
would have other bits than an unbroken one's (with three ranks over gloo, 15 of the 19 gradients of a small D had).
Forbidding that (`find_unused_parameters=True`) means a walk over the graph in every forward. DDP also reduces nothing
for a network that it does not wrap, and a frozen one's gradient norm is recorded too. Here buckets depend on the
network alone; the price is that sums do not overlap the backward pass.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from biggan.distributed.launch import refuse
from biggan.errors import UserError
from biggan.run.checkpoint import digest

BUCKET_BYTES = 25 * 2**20


class LostRank(Exception):
    """Another rank has ended, or cannot be reached."""


def world_size() -> int:
    """How many processes train together; 1 where none was started with others."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that writes: rank 0."""
    return rank() == 0


def local_world_size() -> int:
    """How many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world_size() > 1 else 1


class BatchShard:
    """What one rank holds of every global batch, which is drawn whole and then sliced.

    The batch is cut into `accumulate` micro-batches, and each of these into one part a rank, of sizes that differ by
    one image at most. So the micro-batches are those of a single process. `rows` are this rank's places in the
    global batch, micro-batch after micro-batch; `weight` is its share of every mean over images.
    """

    def __init__(self, batch: int, accumulate: int = 1, *, of: tuple[int, int] | None = None) -> None:
        """`of`: (rank, ranks), this process's for none. Raises `UserError` where a rank would have no image."""
        mine, ranks = of or (rank(), world_size())
        micro = batch // accumulate
        if ranks > micro:
            cut = "" if accumulate == 1 else f", cut into {accumulate} micro-batches of {micro}"
            raise UserError(
                f"{ranks} processes are to share train.batch {batch}{cut}: each needs one image of a micro-batch at "
                f"least. Start at most {micro}, or give a larger batch."
            )
        self.batch, self.whole = batch, ranks == 1
        edges = np.cumsum([0, *(micro // ranks + (r < micro % ranks) for r in range(ranks))])
        own = np.arange(edges[mine], edges[mine + 1])
        self.rows = (np.arange(accumulate)[:, None] * micro + own).reshape(-1)
        self.weight = len(own) / micro

    def of(self, batch: Tensor) -> Tensor:
        """This rank's rows of something drawn for the whole batch (B, ...)."""
        return batch if self.whole else batch[torch.from_numpy(self.rows)]

    def pooled(self, means: Tensor, wish: bool) -> tuple[list[float], bool]:
        """Means (n,) over each rank's images as means over all images; and whether any rank has the wish.

        In one transfer from the device.
        """
        if self.whole:
            return means.tolist(), wish
        values = torch.cat([means.double() * self.weight, means.new_full((1,), float(wish), dtype=torch.float64)])
        *numbers, wishes = all_sum(values).to(means.dtype).tolist()  # in float64, so that all of 1.0 gives 1.0
        return numbers, wishes > 0


_synchronized = False


@contextmanager
def synchronized_batchnorm() -> Iterator[None]:
    """Inside this, every rank is doing the same: BatchNorm takes the statistics of all ranks' images."""
    with _set_synchronized(True):
        yield


@contextmanager
def local_batchnorm() -> Iterator[None]:
    """Inside an enclosing `synchronized_batchnorm`: what follows is done on this rank only."""
    with _set_synchronized(False):
        yield


@contextmanager
def _set_synchronized(value: bool) -> Iterator[None]:
    global _synchronized
    before, _synchronized = _synchronized, value
    try:
        yield
    finally:
        _synchronized = before


def is_batchnorm_synchronized() -> bool:
    """Whether several ranks are inside `synchronized_batchnorm`."""
    return _synchronized and world_size() > 1


@contextmanager
def _reporting_loss() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # what torch.distributed's errors have in common
        raise LostRank(f"rank {rank()} has lost another rank, whose own message says why ({error})") from error


def all_sum(tensor: Tensor) -> Tensor:
    """The sum over ranks, in place, the same bits on each; not differentiable (see `AllSum`)."""
    if world_size() > 1:
        with _reporting_loss():
            dist.all_reduce(tensor)
    return tensor


def gather(tensor: Tensor) -> Tensor:
    """Every rank's tensor, stacked in the order of ranks; not differentiable."""
    if world_size() == 1:
        return tensor[None]
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    with _reporting_loss():
        dist.all_gather(parts, tensor.contiguous())
    return torch.stack(parts)


def gather_objects(value: Any) -> list[Any]:
    """Every rank's value, small and picklable, in the order of ranks."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    with _reporting_loss():
        dist.all_gather_object(found, value)
    return found


def from_main(value: Any) -> Any:
    """Rank 0's value, small and picklable; what the others give is ignored."""
    if world_size() == 1:
        return value
    held = [value]
    with _reporting_loss():
        dist.broadcast_object_list(held, src=0)
    return held[0]


def barrier() -> None:
    """Wait for every rank."""
    gather_objects(None)


class AllSum(torch.autograd.Function):
    """The sum over ranks, of which every rank has a copy; differentiable to all orders.

    Where the ranks' losses are added up, the gradient of their sum reaches each rank's summand.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return all_sum(x.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return AllSum.apply(gradient)


@torch.no_grad()
def sum_gradients(gradients: Sequence[Tensor]) -> None:
    """Sum each over ranks, in place, in buckets that depend on shapes and types alone."""
    if world_size() == 1:
        return
    begun = []
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        with _reporting_loss():
            begun.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, work in begun:
        with _reporting_loss():
            work.wait()
        parts = flat.split([gradient.numel() for gradient in bucket])
        torch._foreach_copy_(list(bucket), [p.view(g.shape) for p, g in zip(parts, bucket, strict=True)])


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, up to `BUCKET_BYTES`, or one tensor that is larger."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size + tensor.nbytes > BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


@torch.no_grad()
def check_copies(tensors: Mapping[str, Tensor], when: str) -> None:
    """Raise `UserError`, on every rank, where the ranks' tensors are not the same bit for bit; name what differs."""
    if world_size() == 1:
        return
    own = {name: digest({name: tensor.detach().cpu()}, {}) for name, tensor in tensors.items()}
    first, *others = gather_objects(own)
    for number, other in enumerate(others, start=1):
        if different := [name for name in first if first[name] != other[name]]:
            refuse(
                f"{when} rank {number}'s copy of the state is not rank 0's: {len(different)} of {len(first)} tensors "
                f"differ, {', '.join(different[:3])} among them. It was not saved, earlier checkpoints are "
                f"whole. Ranks must compute the same bits: give them machines and versions of one kind, and "
                f"--deterministic true."
            )


@torch.no_grad()
def copy_from_main(tensors: Mapping[str, Tensor]) -> None:
    """Give every rank rank 0's values, in place."""
    if world_size() > 1:
        with _reporting_loss():
            for name in sorted(tensors):
                tensor = tensors[name]
                held = tensor.contiguous()
                dist.broadcast(held, src=0)
                tensor.copy_(held)
