"""Adds measurements to any training loop without changing a bit of the training.

It measures weights and gradients on a schedule and writes the record of a run directory. `spectra.monitor.probes`
defines what is measured, `spectra.monitor.schedule` when.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.detect.online import Detectors
from spectra.monitor.measuring import Failure, error_in_words, run_probes, top_found
from spectra.monitor.non_finite import KIND, FirstNonFinite
from spectra.monitor.outlets import Outlets, Sink, Writes
from spectra.monitor.probes import find_probes
from spectra.monitor.schedule import Bursts, Schedule, as_schedule
from spectra.monitor.settings import check_announced, check_settings
from spectra.monitor.vectors import Kept
from spectra.monitor.watched import WatchedNetworks, copies, those_that_fit
from spectra.record.events import append_event, read_event_lines, supersede_events
from spectra.record.segments import RecordWriter, truncate_record

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.tensorboard import SummaryWriter

    from spectra.detect.finding import Finding
    from spectra.detect.registry import Detector
    from spectra.draw.panels import Panels
    from spectra.monitor.probes import Probe
    from spectra.monitor.snapshot import Snapshot


class Monitor:
    """Measures named networks while they train, into `run`/records; `spectra.load(run)` gives it back.

    In a bare loop, where a step updates every network at least once:

        monitor = spectra.Monitor({"net": net}, "runs/mine", every=20)
        for step, batch in enumerate(batches, start=1):
            monitor.before_update("net")
            loss = ...; loss.backward()
            monitor.after_backward("net")
            optimizer.step()
            monitor.after_step(step, {"loss": loss.item()})
        monitor.close()

    A trainer with observers calls the same methods, and the `on_*` ones. A measurement is a function of the step and of
    the last one's singular vectors, kept beside the record (`spectra.monitor.vectors`): neither a save nor a resume
    moves a recorded bit. Trouble that is found in the series becomes an event: a `spike`, or an `alarm` with its
    `cause` ("explosion", ...; see `spectra.DETECTORS`). The seconds that it took are recorded as `monitor/seconds`. On
    measured steps it holds one copy of the weights and one of the gradients. `spectra.watch` finds the updates itself.

    Layers may come, go and change their shape. What cannot be measured is one event `not_measured` with its `layer` and
    the `reason`. A write that fails raises its `OSError`.

    Args:
        networks: a network, called "model"; or by name, without dots and slashes; or (name, network) pairs. An empty
            mapping records scalars alone.
        run: the run directory; it is made where it is missing.
        start_step: the last step done: more than 0 goes on with the record in `run`, dropping what lies after it.
        every: measure every N steps, or by a schedule (`spectra.Every`, `spectra.Logarithmic`, ...).
        top_k: singular values per weight matrix.
        probes: names from `spectra.PROBES`, or `Probe` objects. None: all of `PROBES`.
        tol: largest error of a singular value, relative to sigma0.
        guarantee: "certified": every singular value is within `tol`; "tracked": those between two certifications are
            followed by `spectra.linalg.tracked` instead, at a fraction of the cost, and never called converged.
        certify_every: with "tracked", certify at measured steps that this number divides, and a matrix's first.
        detectors: names from `spectra.DETECTORS`, or `Detector` objects. None: all.
        burst: how many steps after an `alarm` are all measured.
        tensorboard: for panels: a folder of its own, or a torch SummaryWriter, which writes its scalars itself.
        saved_steps: returns the steps at which the run can be resumed; singular vectors that only others need are
            removed. None: all steps passed to `on_checkpoint`.
        on_alarm: called with every `alarm` event, a dict.
        sinks: functions that are called with each step's numbers and the step, `log(dict, step)`.
        on_failed_write: "raise", or "warn": a write that fails is warned of once, and nothing is raised.

    Raises:
        TypeError: an argument of another kind, such as `every=0.5`.
        ValueError: two networks of one name, one network twice, an unknown probe or detector, a network without a
            weight matrix or sharded over processes, or a run directory that holds the record of another run.
    """

    def __init__(
        self,
        networks: nn.Module | Mapping[str, nn.Module] | Iterable[tuple[str, nn.Module]],
        run: str | Path,
        *,
        start_step: int = 0,
        every: int | Schedule = 20,
        top_k: int = 3,
        probes: Sequence[str | Probe] | None = None,
        tol: float = 1e-5,
        guarantee: str = "certified",
        certify_every: int = 100,
        detectors: Sequence[str | Detector] | None = None,
        burst: int = 50,
        tensorboard: str | Path | SummaryWriter | None = None,
        saved_steps: Callable[[], Iterable[int]] | None = None,
        on_alarm: Callable[[Mapping[str, Any]], Any] | None = None,
        sinks: Iterable[Sink] = (),
        on_failed_write: str = "raise",
    ) -> None:
        check_settings(
            run, start_step=start_step, top_k=top_k, tol=tol, guarantee=guarantee, certify_every=certify_every
        )
        self.top_k, self.tol, self._certify_every = top_k, tol, certify_every
        self._outlets, self._write = Outlets(sinks, on_alarm), Writes(Path(run), on_failed_write)
        self.schedule = Bursts(as_schedule(every), burst)
        self.watched = WatchedNetworks(networks)
        self.networks = self.watched.named
        self.probes = find_probes(probes) if self.networks else []
        self._gradients_needed = any(probe.needs_gradients for probe in self.probes)
        self._before_needed = any(probe.needs_before for probe in self.probes)
        tracks = guarantee == "tracked"
        self._turns_needed = tracks or any(probe.needs_last for probe in self.probes)
        self.detectors = Detectors(detectors)
        self._emit: Callable[..., None] | None = None
        self.run = run = Path(run)
        if start_step > 0:
            self.watched.check_same_run(run)
            truncate_record(run, start_step)
            supersede_events(run, start_step)
            self.detectors.replay(run)
        for event in read_event_lines(run):
            if event["event"] == "alarm" and not event.get("superseded") and event["step"] <= start_step:
                self.schedule.alarm(event["step"])
        self.record = RecordWriter(run, start_step, self.watched.legend(self.probes, top_k))
        self.panels: Panels | None = None
        if tensorboard is not None and self.networks:
            from spectra.draw.panels import Panels

            self.panels = Panels(tensorboard, run, self.networks, self.probes, start_step)
        self._last_step, self._stride = start_step, 0
        self._segment = start_step, self.watched.generation
        self._reported: set[tuple[str | None, str | None]] = set()
        devices = {matrix.name: matrix.raw().device for matrix in self.watched.matrices}
        self._directions = Kept(run, start_step, devices, saved_steps, tracks, self.watched.generation)
        self._seconds = 0.0
        self._scores: dict[int, dict[str, float]] = {}
        self._first_non_finite = FirstNonFinite(run, start_step)
        self._forget_step()

    def before_update(self, network: str, k: int = 0) -> None:
        """Call before update `k` of a network, while its weights are unchanged. Raises `ValueError` for an unknown
        network."""
        with self._timed():
            if not self._knows(network) or network in self._begun:
                return
            self._begun.add(network)
            if self._before_needed and self.may_be_due():
                self._read_once()
                self._before |= copies(self.watched.by_network[network])

    def after_backward(self, network: str, k: int = 0) -> None:
        """Call when a network's gradients are complete, before clipping and the optimizer's step.

        Raises `ValueError` for an unknown network.
        """
        with self._timed():
            if not self._knows(network):
                return
            if self._gradients_needed and self.may_be_due():
                self._read_once()
                mine = self.watched.by_network[network]
                for name in mine:
                    self._gradients.pop(name, None)
                self.take_gradients(network, copies({n: p.grad for n, p in mine.items() if p.grad is not None}))
            self._backward.add(network)

    def take_gradients(self, network: str, gradients: Mapping[str, Tensor]) -> None:
        """As `after_backward`, with gradients by parameter name ("G.linear.weight"), which the monitor keeps. Those of
        other parameters stay as they were."""
        if self._knows(network):
            self._backward.add(network)
            self._gradients |= gradients

    def skip(self, network: str) -> None:
        """Call if a network is not updated in this step; its gradients are then not recorded."""
        if self._knows(network):
            self._begun.add(network)
            self._backward.add(network)

    def after_step(self, step: int, scalars: Mapping[str, float] | None = None) -> None:
        """Record the scalars of `step`, and measure the networks where the schedule says so.

        Steps may leave numbers out (10, 20, 30, ...); where their distance changes, one measurement lacks gradients.
        Raises `ValueError` where `step` is not after the last one, and `RuntimeError` where `before_update` or
        `after_backward` was not called for a network since then.
        """
        with self._timed():
            if step < self._last_step or (step == self._last_step and not (self._stride == 0 == step)):
                raise ValueError(f"step {step} comes after step {self._last_step}: steps must grow")
            if self._gradients_needed:
                check_announced(step, "after_backward", self.networks, self._backward)
            if self._before_needed:
                check_announced(step, "before_update", self.networks, self._begun)
            given = self._as_floats(step, scalars or {})
            due = bool(self.networks) and self.schedule.is_due(step)
            measured = self._measure(step) if due else {}
            values = given | self._scores.pop(step, {}) | measured
        if due:
            values["monitor/seconds"], self._seconds = self._seconds, 0.0
        self._write(self.record.append, step, values)
        self._outlets.send(step, values)
        if due and self.panels is not None:
            with self._timed():
                self._guarded(step, "panels", self._show, step, values)
        with self._timed():
            self._detect(step, values)
            self._guarded(step, KIND, self._look_for_non_finite, step, given, measured)
        self._stride = max(step - self._last_step, 1)
        self._last_step = step
        self._forget_step()

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record further scalars of a step, the last one done. Raises `ValueError` for an earlier step."""
        if step < self._last_step:
            raise ValueError(f"scalars of step {step} come after step {self._last_step}: steps must grow")
        values = self._as_floats(step, scalars)
        self._write(self.record.append, step, values)
        self._outlets.send(step, values)
        if self.panels is not None:
            self._guarded(step, "panels", self.panels.add, step, values)
        self._detect(step, values)

    def close(self) -> None:
        """Write buffered numbers and end the segment. Safe to call twice."""
        self._close(draw=True)

    def _close(self, *, draw: bool) -> None:
        self._write(self._directions.flush)
        self._write(self.record.close)
        panels, self.panels = self.panels, None
        if panels is not None:
            self._guarded(self._last_step, "panels", panels.close, draw)

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        assert self.panels is not None
        self.panels.write(step, values)
        if self.panels.picture_is_due(step):
            self.record.flush()
            self.panels.draw(step)

    def _detect(self, step: int, values: Mapping[str, float]) -> None:
        """Report what the detectors find in the step's numbers, to the trainer or, without one, to events.jsonl."""
        found: list[Finding] = []
        self._guarded(step, "detectors", lambda: found.extend(self.detectors.update(step, values)))
        for finding in found:
            alarming = self.detectors.is_alarm(finding)
            fields = {"onset": finding.onset, **({"cause": finding.kind} if alarming else {}), **finding.details}
            self._event(step, "alarm" if alarming else finding.kind, fields)

    def _look_for_non_finite(self, step: int, scalars: Mapping[str, float], measured: Mapping[str, float]) -> None:
        tensors = self.watched.parameters, self._gradients, self._before
        if (first := self._first_non_finite.look(step, scalars, measured, *tensors)) is not None:
            self._event(step, KIND, first)

    def _event(self, step: int, kind: str, fields: Mapping[str, Any]) -> None:
        if self._emit is not None:
            self._emit(kind, **fields)
            return
        event = {"event": kind, "step": step, "time": round(time.time(), 3), **fields}
        self._write(append_event, self.run, event)
        self.on_event(event)

    def report(self, step: int, failure: Failure) -> None:
        """Say, once in a session, that something could not be measured."""
        key = failure.layer, failure.probe
        if key not in self._reported:
            self._reported.add(key)
            fields = {name: value for name, value in vars(failure).items() if value is not None}
            self._event(step, "not_measured", fields)

    def _guarded(self, step: int, what: str, function: Callable[..., Any], *arguments: Any) -> None:
        """Call something that is not the record itself: what fails is an event, but for a failed write."""
        try:
            self._write(function, *arguments)
        except OSError:
            raise
        except Exception as error:
            self.report(step, Failure(None, what, error_in_words(error)))

    def _as_floats(self, step: int, scalars: Mapping[str, float]) -> dict[str, float]:
        found = {}
        for name, value in scalars.items():
            try:
                found[name] = float(value.detach() if hasattr(value, "detach") else value)
            except Exception as error:
                self.report(step, Failure(name, None, f"it is not one number: {error_in_words(error)}"))
        return found

    def on_start(self, trainer: Any) -> None:
        """From here on, send events to the trainer."""
        self._emit = trainer.emit

    def on_event(self, event: Mapping[str, Any]) -> None:
        """An alarm begins a burst of measurements; an evaluation's scores are recorded as eval/WEIGHTS/NAME.

        Events of a step may come before its `after_step` or behind it.
        """
        if event["event"] == "alarm":
            self.schedule.alarm(event["step"])
            self._outlets.alarm(event)
        elif event["event"] == "evaluation":
            scores = {f"eval/{event['weights']}/{name}": float(value) for name, value in event["scores"].items()}
            if event["step"] == self._last_step:
                self._write(self.record.append, event["step"], scores)
            else:
                self._scores.setdefault(event["step"], {}).update(scores)

    def before_checkpoint(self, step: int) -> None:
        """The state of `step` is about to be saved: what was recorded up to here is on the disk first."""
        self._write(self._directions.flush)
        self._write(self.record.flush, durable=True)

    def on_checkpoint(self, step: int, path: Path | None = None) -> None:
        """The state was saved: flush the record, and keep the vectors that a run resumed here needs."""
        self._write(self.record.flush)
        self._directions.saved(step)

    def on_end(self, status: str) -> None:
        """The run ends; after an error nothing more is drawn."""
        self._close(draw=status != "failed")

    def _measure(self, step: int) -> dict[str, float]:
        """Every probe's numbers now."""
        import torch

        from spectra.linalg.tf32 import tf32

        self.watched.read()
        if self.watched.generation != self._segment[1]:
            self._guarded(step, "record", self._begin_segment)
        snapshot = self._snapshot(step)
        with torch.no_grad(), tf32(False):
            numbers, failures = run_probes(self.probes, snapshot)
        if self._turns_needed:
            self._guarded(step, "turns", self._directions.keep, step, top_found(snapshot), self.watched.generation)
        for failure in [*(Failure(name, None, why) for name, why in self.watched.refused.items()), *failures]:
            self.report(step, failure)
        return numbers

    def _begin_segment(self) -> None:
        """Layers have changed: from here on the record is another segment, whose head describes them as they are."""
        if self._last_step > self._segment[0]:
            legend = self.watched.legend(self.probes, self.top_k)
            self.record.close()  # first: one that is followed by another counts as cut where its end is missing
            self.record = RecordWriter(self.run, self._last_step, legend)
            self._segment = self._last_step, self.watched.generation

    def _snapshot(self, step: int) -> Snapshot:
        from spectra.monitor.snapshot import Snapshot

        parameters = self.watched.parameters
        return Snapshot(
            matrices=self.watched.matrices,
            parameters=parameters,
            gradients=those_that_fit(self._gradients, parameters),
            before=those_that_fit(self._before, parameters),
            top_k=self.top_k,
            last=self._directions.last,
            tol=self.tol,
            step=step,
            names={id(p): name for name, p in reversed(self.watched.parameters.items())},
            followed={} if step % self._certify_every == 0 else self._directions.followed(self.watched.generation),
        )

    def _knows(self, network: str) -> bool:
        if self.networks and network not in self.networks:
            raise ValueError(f"unknown network {network!r}; known: {', '.join(map(repr, self.networks))}")
        return bool(self.networks)

    def may_be_due(self) -> bool:
        """Whether the current step will be measured, if its number is the expected one."""
        return self._stride == 0 or self.schedule.is_due(self._last_step + self._stride)

    def _forget_step(self) -> None:
        self._is_read = False
        self._before: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}
        self._begun: set[str] = set()
        self._backward: set[str] = set()

    def _read_once(self) -> None:
        """Look for layers that have come or gone, once before the updates of a step."""
        if not self._is_read:
            self._is_read = True
            self.watched.read()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - begin
