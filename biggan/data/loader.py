"""Batches of real images for D."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from biggan.data.sampler import PositionalSampler

if TYPE_CHECKING:
    from biggan.config import Config
    from biggan.data.images import Source

T = TypeVar("T")


def training_batches(config: Config, source: Source, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Real images (B, 3, R, R) and labels (B,), one global batch for each D step from step `start` on.

    The same for every number of `data.workers`.
    """
    sampler = PositionalSampler(
        len(source.train), batch=config.train.batch, d_steps=config.train.d_steps, seed=config.seed, start=start
    )
    loader = DataLoader(
        source.train,
        batch_sampler=sampler,
        num_workers=config.data.workers,
        collate_fn=_as_is,
        pin_memory=config.device == "cuda",
        persistent_workers=config.data.workers > 0,
        worker_init_fn=_leave_signals_to_the_trainer,
        generator=torch.Generator().manual_seed(0),  # else the loader draws its workers' seed from global state
    )
    return iter(loader)


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Signals may reach a whole group of processes; the trainer finishes its step and needs its batches for that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _as_is(batch: T) -> T:
    return batch
