"""What ranks exchange: sums, with their gradients, what each one has, and what rank 0 has.

Gradients are summed by `sum_gradients` after the backward pass, and not by torch's DistributedDataParallel. DDP lays
its buckets out again after the first backward pass of every session, by the order in which gradients arrived, and from
three ranks on the order in which numbers are added up depends on their place in a bucket: a resumed run's first step
would have other bits than an unbroken one's (with three ranks over gloo, 15 of the 19 gradients of a small D had).
Forbidding that (`find_unused_parameters=True`) means a walk over the graph in every forward. DDP also reduces nothing
for a network that it does not wrap, and a frozen one's gradient norm is recorded too. Here buckets depend on the
network alone; the price is that sums do not overlap the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from biggan.distributed.launch import LostRank
from biggan.distributed.ranks import BatchShard, rank, world_size

BUCKET_BYTES = 25 * 2**20


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


def barrier() -> None:
    """Wait for every rank."""
    gather_objects(None)


def mean_over_ranks(share: BatchShard, means: Tensor, wish: bool) -> tuple[list[float], bool]:
    """Means (n,) over each rank's images as means over all images; and whether any rank has the wish.

    In one transfer from the device.
    """
    if share.whole:
        return means.tolist(), wish
    values = torch.cat([means.double() * share.weight, means.new_full((1,), float(wish), dtype=torch.float64)])
    *numbers, wishes = all_sum(values).to(means.dtype).tolist()  # in float64, so that all of 1.0 gives 1.0
    return numbers, wishes > 0


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
