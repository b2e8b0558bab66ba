"""`--watching`: what a monitor adds to a step, for no monitor, the default schedule and every step."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from biggan.bench.ablate import Rig
from biggan.bench.measure import one_step
from biggan.config import Config

UNTIMED = 3
"""First steps of each kind: estimators find their start vectors, files are opened."""

STEPS_A_ROUND = 10
KINDS: dict[str, dict[str, Any] | None] = {
    "no monitor": None,
    "certified at every step": {"every": 1},
    "tracked at every step": {"every": 1, "guarantee": "tracked"},
}


def watching(arguments: Sequence[str], *, rounds: int, log: Callable[[str], None]) -> dict[str, Any]:
    """The processor's seconds of a step without a monitor and with one, kinds taking turns step by step.

    All kinds train the same networks in one process, so that what else the machine does disturbs them alike.

    Args:
        arguments: as of `biggan-train`, without --out.
        rounds: so many times `STEPS_A_ROUND` steps of each kind.
        log: is given a line on what is measured.

    Returns:
        `step_seconds` (median, without a monitor), `schedule` (the configuration's every N steps), and for each kind
        `seconds` (median), `added` (over no monitor) and `inside` (seconds in the monitor's own calls, mean); for the
        schedule the share of its time that measurements take.
    """
    import spectra
    from biggan.cli.options import parse
    from biggan.run.session import resolve_device, use_arithmetic
    from biggan.training.step import Updater

    steps = STEPS_A_ROUND * rounds
    config = parse(list(arguments)).config()
    config = dataclasses.replace(config, device=resolve_device(config.device))
    use_arithmetic(config)
    rig = Rig(config)
    state = rig.updater(config.speed).state
    log(f"{steps} steps each, with and without a monitor, in turn")
    with tempfile.TemporaryDirectory() as folder:
        kinds: dict[str, _Kind] = {}
        for name, settings in KINDS.items():
            monitor = None
            if settings is not None:
                run = Path(folder) / name
                monitor = spectra.Monitor(state.networks(), run, saved_steps=lambda: [0], **settings)
            kinds[name] = _Kind(monitor)
        updaters = {n: Updater(config, state, kind.before_update, kind.after_backward) for n, kind in kinds.items()}
        for step in range(1, UNTIMED + steps + 1):
            for name, kind in kinds.items():
                begin = time.process_time()
                one_step(config, updaters[name], rig.batches, rig.sync)
                kind.after_step(step)
                kind.seconds.append(time.process_time() - begin)
        for kind in kinds.values():
            kind.close()
    return _shares(kinds, config)


def _shares(kinds: dict[str, _Kind], config: Config) -> dict[str, Any]:
    base = median(kinds["no monitor"].seconds[UNTIMED:])
    rows = {}
    for name, kind in kinds.items():
        seconds = median(kind.seconds[UNTIMED:])
        rows[name] = {"seconds": seconds, "added": seconds / base - 1, "inside": mean(kind.inside[UNTIMED:] or [0.0])}
    every = config.spectra.every
    per_step = rows["certified at every step"]["inside"] / every
    return {"step_seconds": base, "kinds": rows, "schedule": every, "scheduled_share": per_step / base}


@dataclasses.dataclass
class _Kind:
    """A monitor, or none, and the processor's seconds of each step as a whole and inside of the monitor."""

    monitor: Any
    seconds: list[float] = dataclasses.field(default_factory=list)
    inside: list[float] = dataclasses.field(default_factory=list)
    _spent: float = 0.0

    def before_update(self, network: str, k: int) -> None:
        self._timed("before_update", network, k)

    def after_backward(self, network: str, k: int) -> None:
        self._timed("after_backward", network, k)

    def after_step(self, step: int) -> None:
        self._timed("after_step", step, {})
        self.inside.append(self._spent)
        self._spent = 0.0

    def close(self) -> None:
        self._timed("close")

    def _timed(self, method: str, *arguments: Any) -> None:
        if self.monitor is not None:
            begin = time.process_time()
            getattr(self.monitor, method)(*arguments)
            self._spent += time.process_time() - begin
