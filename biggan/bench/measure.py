"""One configuration's speed: the loader alone, whole steps, and their operations relative to matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from biggan.bench.machine import (
    LEAST_TIMED,
    device_facts,
    ignore,
    matrix_rate,
    open_bench_data,
    peak_memory,
    synchronizer,
)

if TYPE_CHECKING:
    from biggan.config import Config
    from biggan.data.images import Source
    from biggan.training.step import Updater


def measure(config: Config, *, seconds: float = 5.0, most: int = 50) -> dict[str, Any]:
    """Everything the table shows, by name; times in seconds, rates per second, memory in bytes.

    `seconds` bounds each of the timed parts, `most` the training steps in it. Raises `UserError` as training would.
    """
    import dataclasses

    from biggan.data.loader import worker_count
    from biggan.run.session import resolve_device, use_arithmetic
    from biggan.training.state import TrainingState
    from biggan.training.step import Updater

    config = dataclasses.replace(config, device=resolve_device(config.device))
    use_arithmetic(config)
    source, origin = open_bench_data(config)
    state = TrainingState(config, config.device)
    updater = Updater(config, state, ignore, ignore)
    eager = dataclasses.replace(config, speed=dataclasses.replace(config.speed, compile=False))
    sync = synchronizer(config)
    found = {
        **device_facts(config),
        "batch": config.train.batch,
        "d_steps": config.train.d_steps,
        "data": origin,
        "workers": worker_count(config),
        **_time_loader(config, source, seconds),
        **count_flop(config, source, Updater(eager, state, ignore, ignore)),  # compiled operations are not seen
        **_time_steps(config, source, updater, seconds, most, sync),
        **peak_memory(config),  # before the matrices below
        **matrix_rate(config, seconds),
    }
    found["flop_per_second"] = found["flop_step"] / found["compute_seconds"]
    found["of_matrix_rate"] = found["flop_per_second"] / found["matrix_flop_per_second"]
    found["loader_headroom"] = found["loader_images_per_second"] / found["compute_images_per_second"]
    return found


def _time_loader(config: Config, source: Source, seconds: float) -> dict[str, float]:
    """The loader alone, as fast as it goes, after its first batches."""
    from biggan.data.loader import training_batches, worker_count

    batches = training_batches(config, source, 0)
    for _ in range(2 + 2 * worker_count(config)):  # what workers had fetched in advance is not counted
        next(batches)
    began, count = time.perf_counter(), 0
    while count < LEAST_TIMED or time.perf_counter() - began < seconds:
        next(batches)
        count += 1
    return {"loader_images_per_second": count * config.train.batch / (time.perf_counter() - began)}


def count_flop(config: Config, source: Source, updater: Updater) -> dict[str, int]:
    """Floating-point operations of matrix products and convolutions in one update of D, one of G, and a whole step."""
    from torch.utils.flop_counter import FlopCounterMode

    from biggan.data.loader import training_batches

    batch = next(training_batches(config, source, 0))
    counts = {}
    for name, update in (("D", lambda: updater.update_discriminator(0, *batch)), ("G", updater.update_generator)):
        with FlopCounterMode(display=False) as counter:
            update()
        counts[name] = counter.get_total_flops()
    step = config.train.d_steps * counts["D"] + counts["G"]
    return {"flop_D": counts["D"], "flop_G": counts["G"], "flop_step": step}


def _time_steps(
    config: Config, source: Source, updater: Updater, seconds: float, most: int, sync: Callable[[], None]
) -> dict[str, float]:
    """Whole steps fed by the loader, as in training: means over the timed ones, each part up to the device's end."""
    from statistics import fmean, median

    from biggan.data.loader import training_batches

    batches = training_batches(config, source, 0)
    waits: list[float] = []
    d_times: list[float] = []
    g_times: list[float] = []
    steps: list[float] = []
    began, warm = time.perf_counter(), 0
    while warm < 2 or (warm < 5 and time.perf_counter() - began < seconds / 2):
        one_step(config, updater, batches, sync)
        warm += 1
    began = time.perf_counter()
    while len(steps) < LEAST_TIMED or (len(steps) < most and time.perf_counter() - began < seconds):
        start = time.perf_counter()
        wait, d_time, g_time = one_step(config, updater, batches, sync)
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


def one_step(config: Config, updater: Updater, batches: Any, sync: Callable[[], None]) -> tuple[float, float, float]:
    """Seconds of waiting for data, of one D update (the mean), and of the G update with the average."""
    clock = time.perf_counter
    wait = d_time = 0.0
    for k in range(config.train.d_steps):
        start = clock()
        batch = next(batches)
        arrived = clock()
        updater.update_discriminator(k, *batch)
        sync()
        wait += arrived - start
        d_time += clock() - arrived
    start = clock()
    updater.update_generator()
    updater.state.ema.update(updater.state.G, updater.state.step + 1)
    updater.state.step += 1
    sync()
    return wait, d_time / config.train.d_steps, clock() - start
