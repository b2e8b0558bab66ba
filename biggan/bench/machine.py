"""What all benchmark reports need to know about the machine: its name, clock, memory and rate of matrix products."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from biggan.config import Config
    from biggan.data.images import Source

SYNTHETIC = 2048  # images in memory where a preset's files were not given
LEAST_TIMED = 3


def ignore(*_: Any) -> None:
    """No observer, nothing to wait for."""


def synchronizer(config: Config) -> Callable[[], None]:
    """What waits until the device has done all it was given."""
    import torch

    return torch.cuda.synchronize if config.device == "cuda" else ignore


def device_facts(config: Config) -> dict[str, Any]:
    """Where a measurement was made."""
    import torch

    cpu = platform.processor() or platform.machine()
    return {
        "device": torch.cuda.get_device_name() if config.device == "cuda" else cpu,
        "threads": config.threads,
        "torch": torch.__version__,
    }


def open_bench_data(config: Config) -> tuple[Source, str]:
    """The configuration's data; where its files were not given, random pixels in memory, and it says so."""
    import numpy as np

    from biggan.data.images import ImageArray, Source
    from biggan.data.sources.opening import open_source

    if config.data.path is not None or config.data.source == "digits":
        return open_source(config), config.data.path or config.data.source
    random, size = np.random.default_rng(0), config.model.resolution
    pixels = random.integers(0, 256, (SYNTHETIC, size, size, 3), dtype=np.uint8)
    images = ImageArray(pixels, random.integers(0, config.model.classes, SYNTHETIC), flip=config.data.flip)
    classes = tuple(str(c) for c in range(config.model.classes))
    return Source(images, images, classes), "random pixels in memory, because no --data.path was given"


def peak_memory(config: Config) -> dict[str, int]:
    """Peak memory of this process since it began, libraries included; on a GPU also what torch has allocated there."""
    import resource

    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    found = {"peak_process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if config.device == "cuda":
        found["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
    return found


@contextmanager
def peak_of_tensors(config: Config) -> Iterator[list[int]]:
    """Appends to the list, at the end, the most bytes of tensors that lived inside beyond those from before.

    On a CPU what kernels take for themselves is not in it, and compiled code is not seen into: the list stays empty.
    """
    import torch

    from biggan.training.estimate import LiveTensors

    found: list[int] = []
    if config.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield found
        found.append(torch.cuda.max_memory_allocated() - before)
    elif config.speed.compile:
        yield found
    else:
        with LiveTensors() as live:
            yield found
        found.append(live.peak)


def matrix_rate(config: Config, seconds: float, dtype: torch.dtype | None = None) -> dict[str, float]:
    """The best rate of square matrix products, of growing size while they fit in memory and in the time.

    In float32 unless `dtype` says otherwise; on a GPU then in TF32 where the configuration has it, as the networks.
    """
    import time

    import torch

    from spectra.linalg.tf32 import tf32

    dtype, sync = dtype or torch.float32, synchronizer(config)
    best, best_size, size, lasted = 0.0, 0, 256, 0.0
    with tf32(config.speed.tf32):
        # A product twice as large takes eight times as long, and is done three times.
        while 24 * lasted < max(seconds, 0.5) and 3 * dtype.itemsize * size**2 < free_memory(config) / 4:
            a, b = (torch.randn(size, size, device=config.device).to(dtype) for _ in range(2))
            for _ in range(3):
                sync()
                start = time.perf_counter()
                torch.mm(a, b)
                sync()
                lasted = time.perf_counter() - start
                if 2 * size**3 / lasted > best:
                    best, best_size = 2 * size**3 / lasted, size
            size *= 2
    return {"matrix_flop_per_second": best, "matrix_size": best_size}


def free_memory(config: Config) -> int:
    """Bytes that are free on the configuration's device."""
    import torch

    if config.device == "cuda":
        return torch.cuda.mem_get_info()[0]
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
