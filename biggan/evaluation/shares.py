"""Scoring and sampling by several processes at once, started by torchrun: each makes its share of the images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from biggan.errors import UserError
from biggan.evaluation.features.registry import Embedded, join
from biggan.evaluation.generate import BLOCK, block_count


@dataclass(frozen=True)
class SampleShard:
    """Which blocks of 64 images this process makes: every `ranks`-th one, from its own number on."""

    rank: int = 0
    ranks: int = 1

    def blocks(self, count: int) -> range:
        """This process's blocks of `count` images."""
        return range(self.rank, block_count(count), self.ranks)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0


def share_from_environment() -> SampleShard:
    """By RANK and WORLD_SIZE, as torchrun sets them. Raises `UserError` where they do not go together."""
    rank, ranks = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdigit() and ranks.isdigit() and int(rank) < int(ranks)):
        raise UserError(f"RANK is {rank} and WORLD_SIZE {ranks}, expected a RANK from 0 to WORLD_SIZE - 1.")
    return SampleShard(int(rank), int(ranks))


@contextmanager
def joined() -> Iterator[SampleShard]:
    """This process's share, with a gloo group over all processes inside the block where there are several."""
    share = share_from_environment()
    own = share.ranks > 1 and not dist.is_initialized()
    if own:
        dist.init_process_group("gloo", rank=share.rank, world_size=share.ranks)
    try:
        yield share
    finally:
        if own:
            dist.destroy_process_group()


def gathered(mine: Embedded, share: SampleShard, count: int) -> Embedded:
    """All `count` images in order, from each process's own blocks; the same on every process."""
    if share.ranks == 1:
        return mine
    parts: list[Embedded] = [mine] * share.ranks
    dist.all_gather_object(parts, mine)
    whole = join(parts)
    numbers = torch.cat([_numbers(SampleShard(rank, share.ranks), count) for rank in range(share.ranks)])
    return whole.take(torch.argsort(numbers))


def _numbers(share: SampleShard, count: int) -> torch.Tensor:
    """The numbers of a process's images, in the order in which it makes them."""
    parts = [torch.arange(b * BLOCK, min((b + 1) * BLOCK, count)) for b in share.blocks(count)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
