"""What ranks exchange: sums, with their gradients, what each one has, and what rank 0 has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from biggan.distributed.launch import LostRank
from biggan.distributed.ranks import BatchShard, rank, world_size

_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # its name until torch 2.12


@contextmanager
def reporting_loss() -> Iterator[None]:
    """Raise `LostRank` for what torch.distributed raises inside."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # what torch.distributed's errors have in common
        raise LostRank(f"rank {rank()} has lost another rank, whose own message says why ({error})") from error


def all_sum(tensor: Tensor) -> Tensor:
    """The sum over ranks, in place, the same bits on each; not differentiable (see `AllSum`)."""
    if world_size() > 1:
        with reporting_loss():
            dist.all_reduce(tensor)
    return tensor


def gather(tensor: Tensor) -> Tensor:
    """Every rank's tensor, stacked in the order of ranks; not differentiable."""
    if world_size() == 1:
        return tensor[None]
    every = tensor.new_empty(world_size() * tensor.numel())
    with reporting_loss():
        _all_gather(every, tensor.reshape(-1))
    return every.view(world_size(), *tensor.shape)


def gather_objects(value: Any) -> list[Any]:
    """Every rank's value, small and picklable, in the order of ranks."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    with reporting_loss():
        dist.all_gather_object(found, value)
    return found


def from_main(value: Any) -> Any:
    """Rank 0's value, small and picklable; what the others give is ignored."""
    if world_size() == 1:
        return value
    held = [value]
    with reporting_loss():
        dist.broadcast_object_list(held, src=0)
    return held[0]


@torch.no_grad()
def copy_from_main(tensors: Mapping[str, Tensor]) -> None:
    """Give every rank rank 0's values, in place."""
    if world_size() > 1:
        with reporting_loss():
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
