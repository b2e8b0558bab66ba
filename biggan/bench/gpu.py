"""`--gpu-report`: one GPU's roofline for a preset, the largest batch that fits, time against batch, the monitor."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from biggan.bench.ablate import Rig, Timing, one_case
from biggan.bench.machine import device_facts, matrix_rate, synchronizer
from biggan.bench.measure import one_step
from biggan.bench.traffic import count_traffic
from biggan.config import SpeedConfig
from biggan.errors import UserError

if TYPE_CHECKING:
    from biggan.config import Config

_Log = Callable[[str], None]

_BATCHES = (64, 128, 256, 512, 1024, 2048)
WATCH_EVERY = 10
FASTEST = SpeedConfig(channels_last=True, precision="bfloat16")


def gpu_report(
    argv: Sequence[str],
    *,
    rounds: int,
    log: _Log,
    batches: Sequence[int] = _BATCHES,
    device: str = "cuda",
    speed: SpeedConfig = FASTEST,
) -> dict[str, Any]:
    """Of a preset (imagenet128 where none) in bfloat16: operations and bytes of a step beside what the device can do of
    both, the time of a step for every batch that fits, the share of a monitor at every 10 steps, and the price of
    deterministic algorithms. `argv`: the preset, and options.

    Operations are the plain networks'. Raises `UserError` where there is no GPU.
    """
    from biggan.cli.options import parse
    from biggan.run.session import resolve_device, use_arithmetic

    preset, options = one_case(argv, "imagenet128")
    line = [preset, "--regularizers.orthogonal_G=0", "--data.workers=0", *options, f"--device={device}"]
    config = parse(line).config()
    config = dataclasses.replace(config, device=resolve_device(config.device), speed=SpeedConfig())
    use_arithmetic(config)
    steps = _time_batches(config, speed, batches, rounds, log)
    fitting = [step["batch"] for step in steps if "step_seconds" in step]
    if not fitting:
        raise UserError(
            f"not even a batch of {batches[0]} fits into this device's memory. Choose a smaller --model.ch."
        )
    at = _with_batch(config, fitting[0])
    log("operations and bytes")
    rates = {name: matrix_rate(config, 5.0, dtype) for name, dtype in _dtypes().items()}
    found = {
        "report": "gpu",
        "preset": preset,
        "speed": dataclasses.asdict(speed),
        **device_facts(config),
        "d_steps": config.train.d_steps,
        "matrix_flop_per_second": {name: rate["matrix_flop_per_second"] for name, rate in rates.items()},
        "copied_bytes_per_second": _copy_rate(config),
        **_per_image(at, speed),
        "batches": steps,
        "largest_batch": fitting[-1],
    }
    for step in steps:
        _add_shares(step, found, rates[speed.precision]["matrix_flop_per_second"])
    log("the monitor, and deterministic algorithms")
    found["watching"] = _price_of_watching(at, speed, rounds)
    found["deterministic"] = _price_of_determinism(at, speed, rounds)
    return found


def _dtypes() -> dict[str, Any]:
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _with_batch(config: Config, batch: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch=batch, accumulate=1))


def _warm_and_time(config: Config, speed: SpeedConfig, rounds: int) -> tuple[int | None, list[Timing]]:
    """The bytes that a step needs, and its timings. Nothing of the rig is held when this returns."""
    rig = Rig(config)
    return rig.warm(speed), [rig.time(speed) for _ in range(rounds)]


def _time_batches(
    config: Config, speed: SpeedConfig, batches: Sequence[int], rounds: int, log: _Log
) -> list[dict[str, Any]]:
    """A step's seconds and memory for each batch up to the first that does not fit."""
    import torch

    steps: list[dict[str, Any]] = []
    for batch in batches:
        log(f"batch {batch}")
        try:
            peak, timed = _warm_and_time(_with_batch(config, batch), speed, rounds)  # its memory is free afterwards
        except torch.cuda.OutOfMemoryError:
            steps.append({"batch": batch, "left_out": "does not fit"})
            break
        finally:
            if config.device == "cuda":
                torch.cuda.empty_cache()
        wall = median(t.wall for t in timed)
        images = batch * config.train.d_steps
        found = {"batch": batch, "step_seconds": wall, "images_per_second": images / wall}
        steps.append({**found, "peak_bytes": peak})
    return steps


def _per_image(config: Config, speed: SpeedConfig) -> dict[str, float]:
    """An image's operations in a step of the plain networks, and the bytes its operators move under `speed`."""
    rig = Rig(config)
    flop = rig.count()
    rig.time(speed)
    traffic = count_traffic(lambda: rig.time(speed, least=0.0))
    return {"flop_per_image": flop / config.train.batch, "bytes_per_image": traffic / config.train.batch}


def _copy_rate(config: Config) -> float:
    """Bytes a second, read and written, of copies of a quarter GiB."""
    import torch

    sync, best = synchronizer(config), 0.0
    a = torch.zeros(2**26, device=config.device)
    b = torch.empty_like(a)
    for _ in range(10):
        sync()
        start = time.perf_counter()
        b.copy_(a)
        sync()
        best = max(best, 2 * a.nbytes / (time.perf_counter() - start))
    return best


def _add_shares(step: dict[str, Any], found: dict[str, Any], matrix: float) -> None:
    """The roofline: how long a step's operations and its bytes would take at the device's rates, beside its time."""
    if "step_seconds" not in step:
        return
    flop, moved = (step["batch"] * found[name] for name in ("flop_per_image", "bytes_per_image"))
    step["of_matrix_rate"] = flop / step["step_seconds"] / matrix
    step["seconds_of_operations"] = flop / matrix
    step["seconds_of_bytes"] = moved / found["copied_bytes_per_second"]


def _price_of_watching(config: Config, speed: SpeedConfig, rounds: int) -> dict[str, float]:
    """A step's seconds unwatched, what a measurement of all spectra adds, and its share at every tenth step."""
    import spectra
    from biggan.training.step import Updater

    rig = Rig(config)
    state, seconds = rig.updater(speed).state, []
    step = median([rig.time(speed).wall for _ in range(rounds + 1)][1:])
    with tempfile.TemporaryDirectory() as folder:
        monitor = spectra.Monitor(state.networks(), Path(folder), every=1)
        speeded = dataclasses.replace(config, speed=speed)
        updater = Updater(speeded, state, monitor.before_update, monitor.after_backward)
        for index in range(1, rounds + 3):
            start = time.perf_counter()
            wait, _, _ = one_step(config, updater, rig.batches, rig.sync)
            monitor.after_step(index, {})
            seconds.append(time.perf_counter() - start - wait)
        monitor.close()
    measuring = max(0.0, median(seconds[2:]) - step)  # the first find their start vectors
    return {"step_seconds": step, "measuring_seconds": measuring, "share": measuring / (WATCH_EVERY * step + measuring)}


def _price_of_determinism(config: Config, speed: SpeedConfig, rounds: int) -> dict[str, float]:
    """A step's seconds with deterministic algorithms and with whichever are fastest."""
    from biggan.run.session import use_arithmetic

    found = {}
    for name, deterministic in (("deterministic", True), ("any", False)):
        use_arithmetic(dataclasses.replace(config, deterministic=deterministic))
        rig = Rig(dataclasses.replace(config, deterministic=deterministic))
        rig.time(speed)
        found[name] = median(rig.time(speed).wall for _ in range(rounds))
        del rig
    use_arithmetic(config)
    return {**found, "price": found["deterministic"] / found["any"] - 1}
