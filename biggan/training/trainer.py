"""The loop: D steps, a G step, the average, the observers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from biggan.config import Config
from biggan.data.images import Source
from biggan.data.prefetch import prefetched
from biggan.distributed.collectives import from_main, mean_over_ranks
from biggan.distributed.consensus import check_copies
from biggan.distributed.launch import launcher_is_gone
from biggan.distributed.ranks import is_main, world_size
from biggan.run.directory import RunDirectory, make_event
from biggan.run.ending import alarm_to_stop_at
from biggan.run.retention import may_be_saved
from biggan.training.observer import Observer, Observers
from biggan.training.reading import EVENT, Reading, Unreadable
from biggan.training.signals import StopSignals
from biggan.training.state import TrainingState
from biggan.training.step import Stats, Updater
from spectra.linalg.tf32 import tf32


class Trainer:
    """Trains `state` up to `config.steps` G steps, and calls `observers`.

    A step depends only on the state and the step's number, so a run can be stopped and resumed anywhere. Under several
    processes each has a trainer and all do the same steps; only rank 0's has observers and writes files.
    """

    def __init__(
        self, config: Config, state: TrainingState, source: Source, run: RunDirectory, observers: list[Observer]
    ) -> None:
        self.config, self.state, self.source, self.run = config, state, source, run
        self.observers = Observers(observers if is_main() else [])
        self.updater = Updater(config, state, self.observers.before_update, self.observers.after_backward)
        self._signals = StopSignals()
        self._stop: str | None = None
        self._until = config.steps
        self._non_finite = False
        self._alarm: dict[str, Any] | None = None
        self._checked = state.step
        self._reading: Reading | None = None

    def train(self, until: int | None = None) -> str:
        """Run the loop; return "finished", "interrupted" (by a signal) or "stopped" (by non-finite numbers or an alarm,
        where the configuration asks for it; the `stopped` event gives the reason).

        With `until`, it ends after that step where it comes before the last one, and returns "paused".
        """
        self._until = self.config.steps if until is None else min(until, self.config.steps)
        try:
            with self._signals, tf32(False):  # but within the updates, as `Updater` has it
                self.observers.on_start(self)
                if is_main():
                    self._alarm = alarm_to_stop_at(self.run, self.config.train, self.state.step, world_size())
                self._loop()
                self._check_copies()
                unreadable = self._report_broken_images(at_end=True)
                status, why = self._ending()
                self.observers.on_end(status)
                self.emit(status, **why)
            if unreadable is not None:
                raise unreadable.refusal(self.run, self.state.step, is_main=is_main())
        except BaseException:
            self.observers.on_end("failed")
            raise
        finally:
            self._reading = None  # ends the loader's workers
            self.run.unlock()
        self._signals.pass_on()
        return status

    def _loop(self) -> None:
        self._reading = Reading(self.config, self.source, self.run, self.state.step)
        batches = prefetched(self._reading.batches, self.updater.device)
        if self.state.step < self._until and self._reading.begin(self.state.step):
            self._stop = "interrupted"
        while self.state.step < self._until and not self._is_to_stop():
            stats = self.train_step(batches)
            self._report_non_finite(stats)
            if may_be_saved(self.state.step, self.config):
                self._check_copies()
            self._report_broken_images()
            self.observers.after_step(self.state.step, stats)

    def _report_broken_images(self, *, at_end: bool = False) -> Unreadable | None:
        """Record images that others took the place of, before the step's state is saved; at the end also the one that
        keeps the next step from beginning."""
        assert self._reading is not None
        if at_end or world_size() == 1 or may_be_saved(self.state.step, self.config):
            for said in self._reading.skipped(self.state.step):
                self.emit(EVENT, **said)
        found = self._reading.error() if at_end and self._stop is not None else None
        if found is not None:
            self.emit(EVENT, **found.event())
        return found

    def _ending(self) -> tuple[str, dict[str, Any]]:
        """How training ended, on every rank alike, and what its event says of the reason.

        Only rank 0 has alarms, so it tells the others. An alarm at the last step stops nothing: the run has finished.
        """
        if world_size() == 1:
            self._is_to_stop()  # also after the last step of a part
        alarm = from_main(self._alarm)
        if self._stop == "stopped":
            return "stopped", {"reason": "non_finite"}
        if self.state.step >= self.config.steps:
            return "finished", {}
        if alarm is not None:
            return "stopped", {"reason": "alarm"} | alarm
        return self._stop or "paused", {}

    def _check_copies(self) -> None:
        """Before a state is saved: raise, on every rank, where their copies of it are not the same bit for bit."""
        if self._checked != self.state.step:
            check_copies(self.state.tensors(), f"after step {self.state.step}")
            self._checked = self.state.step

    def _is_to_stop(self) -> bool:
        """Whether training should end now. All ranks agree, because they exchanged their wishes in the step."""
        if self._wishes_to_stop and world_size() == 1:
            self._stop = self._stop or "interrupted"
        return self._stop is not None

    def train_step(self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
        """One whole step: D's updates, G's update, the average of G.

        Returns the step's numbers; D's are means over its updates.
        """
        discriminator = [self.updater.update_discriminator(k, *next(batches)) for k in range(self.config.train.d_steps)]
        generator = self.updater.update_generator()
        if self.config.train.freeze != "G":
            self.state.ema.update(self.state.G, self.state.step + 1, generator.get("skipped/G"))
        self.state.step += 1
        if self._reading is not None and self.state.step < self._until:  # ranks learn of it in the exchange below
            self._reading.batches.read_ahead(self.state.step)
        return self._to_floats(discriminator, generator)

    def _to_floats(self, discriminator: list[Stats], generator: Stats) -> dict[str, float]:
        """The numbers of one step, over all ranks, in one transfer from the device.

        The wish to stop is sent with them: ranks receive a signal at different moments, and rank 0 alone has alarms,
        but all stop after the same step.
        """
        means = {name: torch.stack([stats[name] for stats in discriminator]).mean() for name in discriminator[0]}
        numbers = means | generator
        values, wish = mean_over_ranks(self.updater.share, torch.stack(list(numbers.values())), self._wishes_to_stop)
        if wish:
            self._stop = "interrupted"
        return dict(zip(numbers, values, strict=True))

    def emit(self, kind: str, **fields: Any) -> None:
        """Record an event at the current step and call the observers."""
        if not is_main():
            return
        event = make_event(kind, self.state.step, **fields)
        self.run.append_event(event)
        settings = self.config.train
        if kind == "alarm" and settings.on_alarm == "stop" and fields.get("cause") in settings.alarm_causes:
            self._alarm = {name: fields[name] for name in ("cause", "onset") if name in fields}
        self.observers.on_event(event)

    @property
    def _wishes_to_stop(self) -> bool:
        """Whether this rank got a signal, has an alarm to stop at, cannot read the next step's images, or has lost the
        launcher that would stop it."""
        blocked = self._reading is not None and self._reading.is_blocked
        return self._signals.asked or self._alarm is not None or blocked or launcher_is_gone()

    def _report_non_finite(self, stats: dict[str, float]) -> None:
        """Emit one event when numbers stop being finite (not one per step); stop if the configuration asks for it.

        The gradients of an update that float16's loss scaling skipped do not count.
        """
        bad = {name: str(value) for name, value in stats.items() if not math.isfinite(value)}  # JSON has no NaN
        for network in ("G", "D"):
            if stats.get(f"skipped/{network}"):
                bad.pop(f"gradient_norm/{network}", None)
        if bad and not self._non_finite:
            self.emit("non_finite", values=bad)
        self._non_finite = bool(bad)
        if bad and self.config.train.on_non_finite == "stop":
            self._stop = "stopped"
