"""The interface of observers, which can be attached to a trainer. They only read; the configuration changes
training."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biggan.training.trainer import Trainer


class Observer:
    """Base of all observers; each event does nothing by default.

    An observer may call `trainer.emit(kind, **fields)`; it may not touch the state, modes, gradients, or global
    random state: a run's bits are the same with and without it.
    """

    acts_last = False
    """Whether its `after_step` is called after that of all others, because it acts on what they have recorded."""

    def on_start(self, trainer: Trainer) -> None:
        """Training is about to begin or continue, at `trainer.state.step`."""

    def before_update(self, network: str, k: int) -> None:
        """Update `k` of network "G" or "D" begins; gradients are those of its last update."""

    def after_backward(self, network: str, k: int) -> None:
        """Its gradients are complete: after accumulation, before clipping and the optimizer's step."""

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """Step `step` (from 1) is done: D's updates, G's, the average. `stats` are numbers on the global batch."""

    def on_event(self, event: Mapping[str, Any]) -> None:
        """An event was emitted: its `event`, `step`, `time`, and further fields."""

    def before_checkpoint(self, step: int) -> None:
        """The state after `step` is about to be saved. What it recorded up to here must be on the disk on return: a run
        that is resumed there does not repeat the step."""

    def on_checkpoint(self, step: int, path: Path) -> None:
        """The state after `step` was saved. A kill may come before this call, which is then not made up for."""

    def on_end(self, status: str) -> None:
        """Training ends: "finished", "interrupted", "stopped" (non-finite numbers, an alarm), or "failed" (an error).

        After an error it may be called a second time, and before `on_start`.
        """


class Observers(Observer):
    """Several observers as one, called in order."""

    def __init__(self, members: list[Observer]) -> None:
        self.members = members

    def on_start(self, trainer: Trainer) -> None:
        for member in self.members:
            member.on_start(trainer)

    def before_update(self, network: str, k: int) -> None:
        for member in self.members:
            member.before_update(network, k)

    def after_backward(self, network: str, k: int) -> None:
        for member in self.members:
            member.after_backward(network, k)

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        for member in sorted(self.members, key=lambda one: getattr(one, "acts_last", None) is True):
            member.after_step(step, stats)

    def on_event(self, event: Mapping[str, Any]) -> None:
        for member in self.members:
            member.on_event(event)

    def before_checkpoint(self, step: int) -> None:
        for member in self.members:
            member.before_checkpoint(step)

    def on_checkpoint(self, step: int, path: Path) -> None:
        for member in self.members:
            member.on_checkpoint(step, path)

    def on_end(self, status: str) -> None:
        """Call every member; after an error, even if one of them raises another error."""
        for member in self.members:
            with suppress(Exception) if status == "failed" else nullcontext():
                member.on_end(status)
