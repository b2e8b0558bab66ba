"""The processes that decode and write images for `biggan-data prepare`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biggan.data.decode import BrokenImage
from biggan.data.images import Images
from biggan.errors import UserError
from biggan.training.signals import leave_signals_to_the_parent
from spectra.record.files import flush

RAW = "raw.npy"
AHEAD = 4  # chunks queued for each worker

Broken = list[tuple[int, str, str]]
"""Broken images of a chunk: (place in the split, name, reason)."""


@dataclass(frozen=True)
class Chunk:
    """The images start .. stop-1 of a split."""

    split: str
    start: int
    stop: int


def run(
    splits: dict[str, Images], folder: Path, chunks: list[Chunk], processes: int
) -> Generator[tuple[Chunk, Broken]]:
    """Pack `chunks` into folder/SPLIT/raw.npy; yield each when its pixels are on the disk, in whatever order.

    With no `processes` here, in order: for images that other processes may not be given.
    """
    if not chunks:
        return
    if not processes:
        for one in chunks:
            yield one, _pack_chunk(splits[one.split], folder, one)
        return
    # Forked workers share the lists of files with their parent; elsewhere they are sent.
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else None)
    pool = ProcessPoolExecutor(
        min(processes, len(chunks)), context, initializer=_begin, initargs=(splits, folder, os.getpid())
    )
    waiting: dict[Future[Broken], Chunk] = {}
    queue = iter(chunks)
    try:
        while True:
            while len(waiting) < AHEAD * processes and (chunk := next(queue, None)) is not None:
                waiting[pool.submit(_pack, chunk)] = chunk
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker was killed, perhaps because memory ran out. Finished work is kept: run the same command again "
            "with "
            "fewer --workers."
        ) from error
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror}. Free space; finished work is kept.") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(splits: dict[str, Images], folder: Path, parent: int) -> None:
    global _splits, _folder
    _splits, _folder = splits, folder
    leave_signals_to_the_parent(but=(signal.SIGTERM,))  # with which a broken pool ends its workers, and waits for them
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    """End this worker when its parent is gone: a killed parent cannot stop its workers."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _pack(chunk: Chunk) -> Broken:
    return _pack_chunk(_splits[chunk.split], _folder, chunk)


def _pack_chunk(images: Images, folder: Path, chunk: Chunk) -> Broken:
    """Decode a chunk and write its pixels where they belong; broken images are left black."""
    path = folder / chunk.split / RAW
    target = np.load(path, mmap_mode="r")
    rows = np.zeros((chunk.stop - chunk.start, *target.shape[1:]), dtype=np.uint8)
    broken: Broken = []
    for place in range(chunk.start, chunk.stop):
        index = int(images.indices[place])
        try:
            rows[place - chunk.start] = images.load_raw(index)
        except BrokenImage as error:
            broken.append((place, images.name(index), str(error)))
    with open(path, "r+b") as file:
        file.seek(target.offset + chunk.start * rows[0].nbytes)
        file.write(rows.tobytes())
        flush(file)
    return broken


_splits: dict[str, Images] = {}
_folder = Path()
