"""`--growth`: the cost of a step for different channels, resolutions and batches, and the exponents of a power law."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from biggan.bench.ablate import Rig, one_case
from biggan.bench.machine import device_facts

if TYPE_CHECKING:
    from biggan.config import Config

CHANNELS, RESOLUTIONS, _BATCHES = (16, 32, 64, 96), (32, 64, 128), (2, 8, 32)
MOST_SECONDS, MOST_BYTES = 60.0, 12 * 2**30
SIZES = ("ch", "resolution", "batch")


def grow(
    argv: Sequence[str],
    *,
    rounds: int,
    log: Callable[[str], None],
    most_seconds: float = MOST_SECONDS,
    grid: tuple[Sequence[int], Sequence[int], Sequence[int]] = (CHANNELS, RESOLUTIONS, _BATCHES),
) -> dict[str, Any]:
    """Seconds and memory of a step (one D step, one G step) for every cell of `grid` (ch, resolution, batch).

    A cell whose step is estimated to take more than `most_seconds` or 12 GiB is left empty and says which; the estimate
    is its operations at the rate of the largest cell so far. `argv`: a preset (imagenet128 where none) and options.
    The exponents are those of step = c ch^a resolution^b batch^d, by least squares of the logarithms.
    """
    from biggan.cli.options import parse
    from biggan.run.session import resolve_device, use_arithmetic

    preset, options = one_case(argv, "imagenet128")
    cells: list[dict[str, Any]] = []
    rate: float | None = None
    for ch, resolution, batch in sorted(((c, r, b) for c in grid[0] for r in grid[1] for b in grid[2]), key=math.prod):
        sizes = [f"--model.ch={ch}", f"--model.resolution={resolution}", f"--train.batch={batch}"]
        # Attention where it is in the widest table only would bend the curves, and the penalty is for large batches.
        fixed = ["--model.attention_G=[]", "--model.attention_D=[]", "--regularizers.orthogonal_G=0"]
        line = [preset, *fixed, "--data.workers=0", "--train.d_steps=1", *options, *sizes]
        config = parse(line).config()
        config = dataclasses.replace(config, device=resolve_device(config.device))
        use_arithmetic(config)
        cell: dict[str, Any] = {**dict(zip(SIZES, (ch, resolution, batch), strict=True)), **_needs(config)}
        seconds = 0.0 if rate is None else cell["flop"] / rate
        if seconds > most_seconds:
            cell["left_out"] = f"> {most_seconds:g} s"
        elif cell["estimated_bytes"] > MOST_BYTES:
            cell["left_out"] = "> 12 GiB"
        else:
            cell |= _timed(config, rounds if seconds < most_seconds / 10 else 1)
            rate = cell["flop"] / cell["step_seconds"]
        cells.append(cell)
        log(f"ch {ch}, {resolution} x {resolution}, batch {batch}: {cell.get('left_out') or cell['step_seconds']}")
    return {
        "report": "growth",
        "preset": preset,
        **device_facts(config),
        "cells": cells,
        "most_seconds": most_seconds,
        "exponents": {name: fitted_exponents(cells, name) for name in ("step_seconds", "flop")},
    }


def _needs(config: Config) -> dict[str, float]:
    """Operations of a step and bytes of a process, estimated without building it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from biggan.networks import build_networks
    from biggan.training.estimate import estimate

    with torch.device("meta"):
        G, D = build_networks(config)
        z, y = torch.empty(1, G.z_dim), torch.zeros(1, dtype=torch.int64)
        images = torch.empty(1, 3, config.model.resolution, config.model.resolution)
    flop = {}
    for name, forward in (("G", lambda: G(z, y)), ("D", lambda: D(images, y))):
        with FlopCounterMode(display=False) as counter:
            forward()
        flop[name] = counter.get_total_flops()
    # D's update: G forward, D on two images with both gradients. G's: G with both, D with that of its input.
    d_update, g_update = flop["G"] + 2 * 3 * flop["D"], 3 * flop["G"] + 2 * flop["D"]
    return {
        "flop": config.train.batch * (config.train.d_steps * d_update + g_update),
        "estimated_bytes": estimate(config)["memory_bytes"],
    }


def _timed(config: Config, rounds: int) -> dict[str, Any]:
    """Medians over `rounds` steps behind a first one."""
    rig = Rig(config)
    peak = rig.warm(config.speed)
    found = [rig.time(config.speed) for _ in range(rounds)]
    return {
        "step_seconds": median(t.wall for t in found),
        "cpu_seconds": median(t.cpu for t in found),
        "peak_bytes": peak,
    }


def fitted_exponents(cells: Sequence[dict[str, Any]], name: str) -> dict[str, float] | None:
    """The exponents of cells[name] over ch, resolution and batch; none where the measured cells do not tell."""
    import numpy as np

    measured = [cell for cell in cells if cell.get("step_seconds")]
    design = np.array([[1.0, *(math.log(cell[size]) for size in SIZES)] for cell in measured])
    if len(measured) < len(SIZES) + 1 or np.linalg.matrix_rank(design) < len(SIZES) + 1:
        return None
    solution, *_ = np.linalg.lstsq(design, np.log([cell[name] for cell in measured]), rcond=None)
    return dict(zip(SIZES, solution[1:].tolist(), strict=True))
