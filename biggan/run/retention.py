"""Which checkpoints exist at any time: the newest few, permanent ones, and a dense ring that an alarm can freeze."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.config import CheckpointConfig, Config, to_dict
from biggan.run.checkpoint import checkpoint_paths, peek, peeked_step, save_checkpoint, step_of
from biggan.run.directory import RunDirectory, make_event
from biggan.run.files import free_name, link_or_copy, replace_link
from biggan.training.observer import Observer
from spectra.record.files import move, remove_partial

if TYPE_CHECKING:
    from biggan.training.trainer import Trainer

MOST_FROZEN_RINGS = 3
BEST = "best.safetensors"


class _Best:
    """The step with the lowest FID of the averaged weights, among evaluations under the settings of the last one."""

    def __init__(self) -> None:
        self.step: int | None = None
        self.fid = math.inf
        self.settings: Mapping[str, Any] | None = None

    def consider(self, evaluation: Mapping[str, Any]) -> None:
        """Take an `evaluation` event into account. Other settings give other scores, and start the comparison again."""
        if evaluation["weights"] != "ema":
            return
        if self.settings != evaluation.get("settings"):
            self.step, self.fid, self.settings = None, math.inf, evaluation.get("settings")
        fid = float(evaluation["scores"].get("fid", math.nan))
        if fid < self.fid:  # never where it is NaN
            self.step, self.fid = evaluation["step"], fid


class CheckpointStore(Observer):
    """Saves the state on the schedule of `checkpoint.*` and at the end; deletes checkpoints that are no longer kept.

    An `alarm` hard-links the ring's files into checkpoints/frozen-STEP/, which keeps states from before the problem.
    Alarms within the ring's length of each other freeze it only once, but a collapse always does. Of more than three
    frozen rings the oldest is deleted.

    A collapse is detected some evaluations after it begins, when a dense ring would have moved on. So one place of the
    ring holds the newest state at or before the last healthy evaluation (`well_until` in its event).

    With `checkpoint.best`, checkpoints/best.safetensors is the state whose averaged weights, those that are sampled
    from, have the lowest FID of all evaluations so far under the settings of the last one.
    """

    acts_last = True  # so that what the step records, also through further observers, precedes its checkpoint

    def on_start(self, trainer: Trainer) -> None:
        """Tidy up after earlier sessions, and finish what a kill cut off."""
        self.trainer = trainer
        self.take_up(trainer.run, trainer.config, trainer.state.step)

    def take_up(self, run: RunDirectory, config: Config, step: int) -> None:
        """Go on with the checkpoints of `run` at `step`.

        Half-written files go, checkpoints of later steps are set aside. What a kill may have cut off after this
        step's checkpoint is done now: its event, the link to the best, deleting those that are no longer kept.
        """
        self.run, self.config = run, config.checkpoint
        self.folder = run.checkpoints
        self.saved: int | None = None
        self._finite: dict[Path, bool] = {}
        self._boundaries = boundaries_of(run.facts())
        self._last_alarm = max((event["step"] for event in run.events_that_hold("alarm")), default=None)
        self._well: int | None = None
        for event in run.events_that_hold("evaluation", step):
            self._consider(event)
        for folder in (run.path, self.folder):
            remove_partial(folder)
        frozen = {path: path.name.removeprefix("frozen-") for path in self.folder.glob("frozen-*")}
        rings = {path: int(number) for path, number in frozen.items() if number.isdecimal()}
        files = {path: step_of(path) for path in checkpoint_paths(run.path)}
        for path, later in (rings | files).items():
            if later > step:
                self._set_aside(path)
        self._take_up_best(step)
        if (path := self._path(step)).exists():
            self.saved = step
            if all(event["step"] != step for event in run.events_that_hold("checkpoint")):
                run.append_event(make_event("checkpoint", step, **checkpoint_fields(path, peek(path)["digest"])))
            self._prune()

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """Save where one of the three intervals falls due, and a state that is the best so far."""
        if is_due(step, self.config) or self._best.step == step:
            self.save()

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Freeze the ring on an alarm; remember the best evaluation."""
        if event["event"] == "evaluation":
            self._consider(event)
            if self.config.best:
                self._best.consider(event)
        if event["event"] == "alarm" and self.config.ring_every:
            span = self.config.ring_every * self.config.ring_keep
            new = self._last_alarm is None or event["step"] - self._last_alarm > span
            if new or event.get("cause") == "collapse":
                self._freeze(event["step"])
            self._last_alarm = event["step"]

    def on_end(self, status: str) -> None:
        """Save the last step if it is not saved yet. After an error nothing is saved, since the state may be wrong."""
        if status != "failed" and self.saved != self.trainer.state.step:
            self.save()

    def save(self) -> Path:
        """Save the state now, call the observers, and delete checkpoints that are no longer kept."""
        state = self.trainer.state
        path = self._path(state.step)
        self.trainer.observers.before_checkpoint(state.step)
        digest = save_checkpoint(path, state.tensors(), state.step, to_dict(self.trainer.config))
        self.saved = state.step
        self.trainer.emit("checkpoint", **checkpoint_fields(path, digest))
        if self._best.step == state.step:
            replace_link(path, self.folder / BEST)
        self.trainer.observers.on_checkpoint(state.step, path)
        self._prune()
        return path

    def _consider(self, evaluation: Mapping[str, Any]) -> None:
        if evaluation["weights"] == "raw":
            self._well = evaluation.get("well_until", self._well)

    def _set_aside(self, path: Path) -> None:
        """Move checkpoints of later steps, which will be repeated, into checkpoints/skipped/."""
        aside = self.folder / "skipped"
        aside.mkdir(exist_ok=True)
        move(path, free_name(aside / path.name))

    def _take_up_best(self, now: int) -> None:
        """Restore the best evaluation so far, including those of earlier sessions and of a branch's parent.

        It decides when a state is saved, so it must not depend on where a run was stopped or branched.
        """
        self._best = _Best()
        path = self.folder / BEST
        if (peeked_step(path) or 0) > now:
            self._set_aside(path)
        for event in self.run.events_that_hold("evaluation", now) if self.config.best else ():
            self._best.consider(event)
        if self._best.step == now and self._path(now).exists():  # killed before it was linked
            replace_link(self._path(now), path)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"

    def _prune(self) -> None:
        paths = {step_of(path): path for path in checkpoint_paths(self.run.path)}
        finite = {step: self._is_finite(path) for step, path in paths.items()}
        for step in set(paths) - retained(finite, self.config, self._well) - self._boundaries:
            paths[step].unlink()

    def _is_finite(self, path: Path) -> bool:
        if path not in self._finite:
            self._finite[path] = peek(path).get("finite") == "true"
        return self._finite[path]

    def _freeze(self, step: int) -> None:
        paths = {step_of(path): path for path in checkpoint_paths(self.run.path)}
        ring = ring_of(sorted(paths), self.config, self._well)
        if not ring:  # an alarm before the first checkpoint
            return
        frozen = self.folder / f"frozen-{step:08d}"
        frozen.mkdir(exist_ok=True)
        for one in ring:
            link_or_copy(paths[one], frozen / paths[one].name)
        for old in sorted(self.folder.glob("frozen-*"))[:-MOST_FROZEN_RINGS]:
            shutil.rmtree(old)


def checkpoint_fields(path: Path, digest: str) -> dict[str, str]:
    """What a `checkpoint` event says of the file."""
    return {"path": f"checkpoints/{path.name}", "digest": digest}


def boundaries_of(facts: Mapping[str, Any]) -> set[int]:
    """The steps at which a branch's changes begin and end after its branching point. Their checkpoints stay: each is
    the last state of one phase, from which the next begins. So does that of a state that was imported."""
    born = (facts.get("parent") or {}).get("step")
    if born is None:
        imported = facts.get("imported")
        return set() if imported is None else {imported["step"]}
    entries = [*facts.get("inherited_changes", []), *facts.get("changes", [])]
    steps = {step for entry in entries for step in (entry["from"], entry["until"]) if step is not None}
    return {step for step in steps if step > born}


def is_due(step: int, config: CheckpointConfig) -> bool:
    """Whether one of the three intervals falls on `step`."""
    return any(every and step % every == 0 for every in (config.every, config.permanent_every, config.ring_every))


def may_be_saved(step: int, config: Config) -> bool:
    """Whether the state of `step` is saved, or would be if its evaluation is the best."""
    may_be_best = config.checkpoint.best and config.eval.every and step % config.eval.every == 0
    return is_due(step, config.checkpoint) or bool(may_be_best)


def ring_of(steps: Sequence[int], config: CheckpointConfig, well: int | None = None) -> list[int]:
    """The steps of the ring, of those that exist, in order: the newest `ring_keep`, or one fewer and the newest state
    at or before `well`, the last evaluation that was certainly sound, where these do not hold it."""
    if not config.ring_every:
        return []
    ring = [step for step in steps if step % config.ring_every == 0][-config.ring_keep :]
    sound = [step for step in steps if well is not None and step <= well][-1:]
    if not sound or sound[0] in ring:
        return ring
    return sorted({*sound, *ring[max(len(ring) + 1 - config.ring_keep, 0) :]})


def retained(finite: Mapping[int, bool], config: CheckpointConfig, well: int | None = None) -> set[int]:
    """The steps whose checkpoints stay, of those that exist (step -> whether it is finite).

    The newest `keep` of the regular ones and of those on no interval, finite ones first; every permanent one; the
    ring (`ring_of`); and always the newest of all, and the newest finite one.
    """

    def falls_on(step: int, every: int) -> bool:
        return bool(every) and step % every == 0

    steps = sorted(finite)
    ring = ring_of(steps, config, well)
    permanent = {step for step in steps if falls_on(step, config.permanent_every)}
    # Steps on no interval (a best evaluation's, a last one) are kept likewise, and push none of the regular ones out.
    regular = [s for s in steps if falls_on(s, config.every)]
    others = [s for s in steps if not is_due(s, config)]
    newest = [sorted(part, key=lambda s: (finite[s], s), reverse=True)[: config.keep] for part in (regular, others)]
    stay = {*newest[0], *newest[1], *permanent, *ring, *steps[-1:]}
    return stay | set([step for step in steps if finite[step]][-1:])
