"""How long a study's runs take and how much disk they use: from its finished runs, or measured and estimated."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from biggan.training.observer import Observer
from interventions.study.expand import Job

if TYPE_CHECKING:
    from biggan.config import Config
    from biggan.training.trainer import Trainer

_MEASURED_STEPS, _WARM_UP = 40, 10
_FIXED_SHARE = 0.5
"""The part of a small step's time that depends on neither the batch nor the widths."""
_EVALUATION_SHARE = 1.15
"""Evaluations and checkpoints come on top of the measured steps."""
_RECORD_BYTES = 4 * 2**20
_INTERRUPTED = ("resumed", "interrupted", "paused")


@dataclass
class Rates:
    """Seconds of a step, of one run at a time on one core."""

    seconds_per_step: float
    source: str
    """Where the rate is from, in words."""
    by_entry: dict[str, list[float]] = field(default_factory=dict)
    """Entry -> the rates of its finished runs."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """Entry -> how long its step takes, in base run's steps, by its settings."""

    def seconds(self, job: Job) -> float:
        """The estimated seconds of a whole run of the job."""
        known = self.by_entry.get(job.entry)
        rate = median(known) if known else self.seconds_per_step * self.factors.get(job.entry, 1.0)
        return rate * job.steps

    def learn(self, entry: str, rate: float | None) -> None:
        """Take a finished run's rate into account."""
        if rate is not None:
            self.by_entry.setdefault(entry, []).append(rate)


def recorded_rate(run: Path) -> float | None:
    """Seconds of a step of a finished run that was not interrupted; None for any other."""
    from biggan.run.directory import RunDirectory

    events = [event for event in RunDirectory(run).events_that_hold() if not event.get("superseded")]
    begun = next((event for event in events if event["event"] == "started"), None)
    if begun is None or events[-1]["event"] != "finished" or any(e["event"] in _INTERRUPTED for e in events):
        return None
    steps = events[-1]["step"] - begun["step"]
    start, end = begun.get("time"), events[-1].get("time")
    return (end - start) / steps if steps > 0 and start is not None and end is not None else None


def known_rates(finished: Iterable[tuple[Job, Path]], factors: Mapping[str, float], config: Config) -> Rates:
    """The rates of the finished runs; without any, of a few steps of `config` measured now."""
    found = Rates(0.0, "", factors=factors)
    for job, run in finished:
        found.learn(job.entry, recorded_rate(run))
    known = [rate / factors.get(entry, 1.0) for entry, rates in found.by_entry.items() for rate in rates]
    if known:
        found.seconds_per_step, found.source = median(known), f"the recorded speed of {len(known)} finished runs"
    else:
        found.seconds_per_step, found.source = measured_rate(config), f"{_MEASURED_STEPS} steps, measured now"
    return found


class _Clock(Observer):
    """Notes when steps end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_start(self, trainer: Trainer) -> None:
        """Do nothing."""

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """Note the time."""
        self.times.append(time.monotonic())

    def on_end(self, status: str) -> None:
        """Do nothing."""


def measured_rate(config: Config) -> float:
    """Seconds of a step of `config`, from a short run in a temporary directory."""
    from biggan.run.assemble import train_session
    from biggan.run.session import open_new

    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        evaluation = dataclasses.replace(config.eval, every=0)
        short = dataclasses.replace(config, steps=_MEASURED_STEPS, out=f"{folder}/run", eval=evaluation)
        train_session(open_new(short, "rate"), quiet=True, further=[clock])
    times = clock.times[_WARM_UP:]
    return _EVALUATION_SHARE * (times[-1] - times[0]) / (len(times) - 1)


def work_factor(base: Config, config: Config) -> float:
    """How many of `base`'s steps a step of `config` takes, roughly."""

    def work(one: Config) -> float:
        G, D = (one.model.ch_G or one.model.ch), (one.model.ch_D or one.model.ch)
        penalty = 1.5 if one.regularizers.r1 or one.regularizers.gradient_penalty else 1.0
        return one.train.batch * (G * (1 + one.train.d_steps / 2) + D * (1 + one.train.d_steps * 2 * penalty))

    return _FIXED_SHARE * _updates(config) / _updates(base) + (1 - _FIXED_SHARE) * work(config) / work(base)


def _updates(config: Config) -> int:
    return 1 + config.train.d_steps


def run_bytes(run: Path) -> int:
    """The disk space of a run; files with several names count once."""
    files = {(stat.st_dev, stat.st_ino): stat.st_size for p in run.rglob("*") if p.is_file() and (stat := p.stat())}
    return sum(files.values())


def estimated_bytes(config: Config) -> int:
    """The disk space that a run of `config` will need: its checkpoints, and a few megabytes of records."""
    import torch

    from biggan.networks import build_networks

    with torch.device("meta"):
        G, D = build_networks(config)
    counts = [sum(one.numel() for one in network.parameters()) for network in (G, D)]
    checkpoint = 4 * (3 * sum(counts) + counts[0])
    kept = config.checkpoint.keep + config.checkpoint.best
    kept += 2 * config.checkpoint.ring_keep if config.checkpoint.ring_every else 0  # the ring, and a frozen one
    return kept * checkpoint + _RECORD_BYTES
