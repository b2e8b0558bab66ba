"""`python -m biggan.bench [PRESET] [--any.option VALUE]`: how fast a configuration trains here, and what bounds it."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from biggan.cli import EXIT_DONE, guarded
from biggan.errors import UserError

if TYPE_CHECKING:
    from biggan.config import Config
    from biggan.data import Source
    from biggan.step import Game

SYNTHETIC = 2048  # images in memory where a preset's files were not given
LEAST_TIMED = 3
FLOAT_BYTES = 4


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table or one JSON object. Returns the exit code: 0 done, 2 bad input, 1 anything else."""
    argv = sys.argv[1:] if argv is None else argv
    return guarded("biggan.bench", _bench, argv, stopped="stopped; nothing is kept.", kept="Nothing is kept.")


def _bench(argv: list[str]) -> int:
    arguments, rest = _parser().parse_known_args(argv)
    from biggan.options import parse

    line = parse(rest)
    if useless := [name for name in ("resume", "allow_change", "quiet", "dry_run") if line.flags[name]]:
        raise UserError(f"--{useless[0].replace('_', '-')} means nothing to the benchmark. Leave it away.")
    found = measure(line.config(), seconds=arguments.seconds, most=arguments.timed_steps)
    found = {"preset": line.preset, **found}
    if arguments.json:
        print(json.dumps(found))
    else:
        _print_table(found)
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m biggan.bench",
        allow_abbrev=False,
        usage="python -m biggan.bench [PRESET] [--section.field VALUE ...] [--seconds S] [--timed-steps N] [--json]",
        description="Measure training and loading speed of a configuration on this machine. Takes biggan-train's "
        "presets and options. Nothing is written.",
    )
    add = parser.add_argument
    add("--seconds", type=float, default=5.0, metavar="S", help="time for each measurement (default 5)")
    add(
        "--timed-steps",
        type=int,
        default=50,
        metavar="N",
        help=f"at most so many steps (default 50, {LEAST_TIMED} at least)",
    )
    add("--json", action="store_true", help="print one JSON object")
    return parser


def measure(config: Config, *, seconds: float = 5.0, most: int = 50) -> dict[str, Any]:
    """Everything the table shows, by name; times in seconds, rates per second, memory in bytes.

    `seconds` bounds each of the timed parts, `most` the training steps in it. Raises `UserError` as training would.
    """
    import dataclasses

    import torch

    from biggan.data.loader import worker_count
    from biggan.session import resolve_device, use_arithmetic
    from biggan.state import TrainingState
    from biggan.step import Game

    config = dataclasses.replace(config, device=resolve_device(config.device))
    use_arithmetic(config)
    source, origin = _open(config)
    state = TrainingState(config, config.device)
    game = Game(config, state, _ignore, _ignore)
    sync: Callable[[], None] = torch.cuda.synchronize if config.device == "cuda" else _ignore
    found = {
        "device": torch.cuda.get_device_name()
        if config.device == "cuda"
        else platform.processor() or platform.machine(),
        "threads": config.threads,
        "torch": torch.__version__,
        "batch": config.train.batch,
        "d_steps": config.train.d_steps,
        "data": origin,
        "workers": worker_count(config),
        **_time_loader(config, source, seconds),
        **_count_flop(config, source, game),
        **_time_steps(config, source, game, seconds, most, sync),
        **_peak_memory(config),  # before the matrices below
        **_matrix_rate(config, seconds, sync),
    }
    found["flop_per_second"] = found["flop_step"] / found["compute_seconds"]
    found["of_matrix_rate"] = found["flop_per_second"] / found["matrix_flop_per_second"]
    found["loader_headroom"] = found["loader_images_per_second"] / found["compute_images_per_second"]
    return found


def _ignore(*_: Any) -> None:
    """No observer, nothing to wait for."""


def _open(config: Config) -> tuple[Source, str]:
    """The configuration's data; where its files were not given, random pixels in memory, and it says so."""
    import numpy as np

    from biggan.data import ImageArray, Source, open_source

    if config.data.path is not None or config.data.source == "digits":
        return open_source(config), config.data.path or config.data.source
    random, size = np.random.default_rng(0), config.model.resolution
    pixels = random.integers(0, 256, (SYNTHETIC, size, size, 3), dtype=np.uint8)
    images = ImageArray(pixels, random.integers(0, config.model.classes, SYNTHETIC), flip=config.data.flip)
    classes = tuple(str(c) for c in range(config.model.classes))
    return Source(images, images, classes), "random pixels in memory, as no --data.path was given"


def _time_loader(config: Config, source: Source, seconds: float) -> dict[str, float]:
    """The loader alone, as fast as it goes, after its first batches."""
    from biggan.data import training_batches
    from biggan.data.loader import worker_count

    batches = training_batches(config, source, 0)
    for _ in range(2 + 2 * worker_count(config)):  # what workers had fetched in advance is not counted
        next(batches)
    began, count = time.perf_counter(), 0
    while count < LEAST_TIMED or time.perf_counter() - began < seconds:
        next(batches)
        count += 1
    return {"loader_images_per_second": count * config.train.batch / (time.perf_counter() - began)}


def _count_flop(config: Config, source: Source, game: Game) -> dict[str, int]:
    """Floating-point operations of matrix products and convolutions in one update of D, one of G, and a whole step."""
    from torch.utils.flop_counter import FlopCounterMode

    from biggan.data import training_batches

    batch = next(training_batches(config, source, 0))
    counts = {}
    for name, update in (("D", lambda: game.update_discriminator(0, *batch)), ("G", game.update_generator)):
        with FlopCounterMode(display=False) as counter:
            update()
        counts[name] = counter.get_total_flops()
    step = config.train.d_steps * counts["D"] + counts["G"]
    return {"flop_D": counts["D"], "flop_G": counts["G"], "flop_step": step}


def _time_steps(
    config: Config, source: Source, game: Game, seconds: float, most: int, sync: Callable[[], None]
) -> dict[str, float]:
    """Whole steps fed by the loader, as in training: means over the timed ones, each part up to the device's end."""
    from statistics import fmean, median

    from biggan.data import training_batches

    batches = training_batches(config, source, 0)
    waits, d_times, g_times, steps = [], [], [], []
    began, warm = time.perf_counter(), 0
    while warm < 2 or (warm < 5 and time.perf_counter() - began < seconds / 2):
        _one_step(config, game, batches, sync)
        warm += 1
    began = time.perf_counter()
    while len(steps) < LEAST_TIMED or (len(steps) < most and time.perf_counter() - began < seconds):
        start = time.perf_counter()
        wait, d_time, g_time = _one_step(config, game, batches, sync)
        steps.append(time.perf_counter() - start)
        waits.append(wait)
        d_times.append(d_time)
        g_times.append(g_time)
    images = config.train.batch * config.train.d_steps
    compute = fmean(steps) - fmean(waits)
    return {
        "timed_steps": len(steps),
        "seconds_D": median(d_times),
        "seconds_G": median(g_times),
        "step_seconds": fmean(steps),
        "compute_seconds": compute,
        "images_per_second": images / fmean(steps),
        "compute_images_per_second": images / compute,
        "waiting_share": fmean(waits) / fmean(steps),
    }


def _one_step(config: Config, game: Game, batches: Any, sync: Callable[[], None]) -> tuple[float, float, float]:
    """Seconds of waiting for data, of one D update (the mean), and of the G update with the average."""
    clock = time.perf_counter
    wait = d_time = 0.0
    for k in range(config.train.d_steps):
        start = clock()
        batch = next(batches)
        arrived = clock()
        game.update_discriminator(k, *batch)
        sync()
        wait += arrived - start
        d_time += clock() - arrived
    start = clock()
    game.update_generator()
    game.state.ema.update(game.state.G, game.state.step + 1)
    game.state.step += 1
    sync()
    return wait, d_time / config.train.d_steps, clock() - start


def _peak_memory(config: Config) -> dict[str, int]:
    """Peak memory of this process since it began, libraries included; on a GPU also what torch has allocated there."""
    import resource

    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    found = {"peak_process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if config.device == "cuda":
        found["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
    return found


def _matrix_rate(config: Config, seconds: float, sync: Callable[[], None]) -> dict[str, float]:
    """The best rate of square float32 matrix products, of growing size while they fit in memory and in the time.

    On a GPU with the shortened mantissa (TF32) where convolutions are allowed it, so that both are of one kind.
    """
    import torch

    precision = torch.get_float32_matmul_precision()
    if config.device == "cuda" and torch.backends.cudnn.allow_tf32:
        torch.set_float32_matmul_precision("high")
    best, best_size, size, lasted = 0.0, 0, 256, 0.0
    try:
        # A product twice as large takes eight times as long, and is done three times.
        while 24 * lasted < max(seconds, 0.5) and 3 * FLOAT_BYTES * size**2 < _free_memory(config) / 4:
            a, b = (torch.randn(size, size, device=config.device) for _ in range(2))
            for _ in range(3):
                sync()
                start = time.perf_counter()
                torch.mm(a, b)
                sync()
                lasted = time.perf_counter() - start
                if 2 * size**3 / lasted > best:
                    best, best_size = 2 * size**3 / lasted, size
            size *= 2
    finally:
        torch.set_float32_matmul_precision(precision)
    return {"matrix_flop_per_second": best, "matrix_size": best_size}


def _free_memory(config: Config) -> int:
    import os

    import torch

    if config.device == "cuda":
        return torch.cuda.mem_get_info()[0]
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


def _print_table(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    threads = "1 thread" if found["threads"] == 1 else f"{found['threads']} threads"
    table = Table(title=f"{found['preset']} on {found['device']}, {threads}, torch {found['torch']}", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for row in _rows(found):
        table.add_row(*row)
    table.caption = f"images/s are real images that D sees. Data: {found['data']}."
    Console().print(table)


def _rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    giga, milli = 1e9, 1e-3
    steps = "1 D step" if found["d_steps"] == 1 else f"{found['d_steps']} D steps"
    workers = "1 worker" if found["workers"] == 1 else f"{found['workers']} workers"
    rows = [
        ("images/s", f"{found['images_per_second']:,.1f}", f"{found['timed_steps']} steps, batch {found['batch']}"),
        ("D step", f"{found['seconds_D'] / milli:,.1f} ms", "median"),
        ("G step", f"{found['seconds_G'] / milli:,.1f} ms", "median, averaging included"),
        ("whole step", f"{found['step_seconds'] / milli:,.1f} ms", f"mean: {steps}, G step, data"),
        (
            "work per step",
            f"{found['flop_step'] / giga:,.2f} GFLOP",
            f"counted: D {found['flop_D'] / giga:,.2f}, G {found['flop_G'] / giga:,.2f}",
        ),
        ("achieved", f"{found['flop_per_second'] / giga:,.1f} GFLOP/s", "waiting for data left out"),
        (
            "matrix product",
            f"{found['matrix_flop_per_second'] / giga:,.1f} GFLOP/s",
            f"float32, best at {found['matrix_size']} x {found['matrix_size']}",
        ),
        ("achieved / matrix product", f"{found['of_matrix_rate']:.1%}", ""),
        ("data loader", f"{found['loader_images_per_second']:,.0f} images/s", f"alone, {workers}"),
        ("data loader / training", f"{found['loader_headroom']:,.1f} x", "above 1: it keeps up"),
        ("waiting for data", f"{found['waiting_share']:.2%}", "of a whole step"),
        ("peak memory", f"{found['peak_process_bytes'] / 2**20:,.0f} MiB", "this process and its libraries"),
    ]
    if "peak_gpu_bytes" in found:
        rows.append(("peak GPU memory", f"{found['peak_gpu_bytes'] / 2**20:,.0f} MiB", "allocated by torch"))
    return rows


if __name__ == "__main__":
    sys.exit(main())
