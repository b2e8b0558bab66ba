"""Batches of real images for D."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset

from biggan.data.sampler import PositionalSampler
from biggan.data.step_batches import LoadedBatch, StepBatches
from biggan.distributed.ranks import BatchShard, local_world_size
from biggan.errors import UserError
from biggan.training.signals import leave_signals_to_the_parent

if TYPE_CHECKING:
    from biggan.config import Config
    from biggan.data.images import Images, Position, Source


def training_batches(config: Config, source: Source, start: int) -> StepBatches:
    """Real images (B, 3, R, R) and labels (B,), one global batch for each D step from step `start` on.

    The same for every number of `data.workers`. Each rank reads only its own rows (`BatchShard`). Raises
    `UserError` if an image is broken, before the first batch of its step (see `StepBatches`).
    """
    sampler = PositionalSampler(
        len(source.train),
        batch=config.train.batch,
        d_steps=config.train.d_steps,
        seed=config.seed,
        start=start,
        rows=BatchShard(config.train.batch, config.train.accumulate).rows,
    )
    workers = worker_count(config)
    loader = DataLoader(
        _Reporting(source.train),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_as_is,
        pin_memory=config.device == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=_begin_worker,
        generator=torch.Generator().manual_seed(0),  # else the loader draws its workers' seed from global state
    )
    return StepBatches(iter(loader), config.train.d_steps, start)


def worker_count(config: Config) -> int:
    """`data.workers`, but at most one per core of this process: more would only slow each other down.

    Processes of one machine that train together share its cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(config.data.workers, max(cores // local_world_size(), 1))


class _Reporting(Dataset):
    """Passes a `UserError` on as a batch, because torch would wrap a worker's error in its own text and a traceback."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __getitems__(self, positions: list[Position]) -> LoadedBatch | UserError:
        try:
            images, labels = self.images.__getitems__(positions)
            return images, labels, self.images.take_skipped()
        except UserError as error:
            return error.with_traceback(None)  # which would keep the workers, and end them slowly


def _begin_worker(worker: int) -> None:
    leave_signals_to_the_parent()


def _as_is(batch: Any) -> Any:
    return batch
