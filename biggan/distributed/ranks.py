"""Which of several processes this is, its share of every batch, and whether all of them are doing the same.

Every rank holds a whole copy of the state and makes the same update from the same summed gradient, so that copies stay
equal bit for bit without being sent. On one process all of it is a no-op.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from biggan.errors import UserError


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
        self._rows_on: dict[torch.device, Tensor] = {}

    def of(self, batch: Tensor) -> Tensor:
        """This rank's rows of something drawn for the whole batch (B, ...)."""
        return batch if self.whole else batch[self.rows_on(batch.device)]

    def rows_on(self, device: torch.device) -> Tensor:
        """`rows` on a device, copied there once: a copy waits for the device."""
        if device not in self._rows_on:
            self._rows_on[device] = torch.from_numpy(self.rows).to(device)
        return self._rows_on[device]


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
