"""The progress display of training."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.observers.display import ProgressDisplay, clock
from biggan.run.outline import Scores, take_score
from biggan.training.observer import Observer

if TYPE_CHECKING:
    from biggan.training.trainer import Trainer


_SHOWN = ("non_finite", "first_non_finite", "spike", "alarm", "recovered", "notify_failed")

WIDE_TERMINAL = 100
"""Columns of a terminal from which on the last checkpoint is shown too."""


class Progress(Observer):
    """Step, rate, time left, losses, the last FID, the last checkpoint."""

    acts_last = True  # to show this step's checkpoint

    display: ProgressDisplay | None = None

    def on_start(self, trainer: Trainer) -> None:
        """Begin to count."""
        self.began, self.first, self.total = time.monotonic(), trainer.state.step, trainer.config.steps
        self.saved = f"saved at {self.first}" if self.first else "not saved yet"
        self.scores: Scores = {}
        for event in trainer.run.events_that_hold("evaluation", self.first):
            take_score(self.scores, event)
        self.display = ProgressDisplay("step {task.completed}/{task.total}", self.total, self.first)

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """Show the step."""
        assert self.display is not None
        rate = (step - self.first) / max(time.monotonic() - self.began, 1e-9)
        losses = f"D {stats['loss/D_real'] + stats['loss/D_fake']:.2f} G {stats['loss/G']:+.2f}"
        parts = [losses, *self._fid(), self.saved]

        def line() -> str:
            left = clock((self.total - step) / rate)
            return "  ".join([f"step {step}/{self.total}", f"{rate:.1f} steps/s", f"{left} left", *parts])

        wide = shutil.get_terminal_size().columns >= WIDE_TERMINAL
        self.display.show(step, f"{rate:.1f}/s", line, "  ".join(parts if wide else parts[:-1]))

    def _fid(self) -> list[str]:
        """The last FID of G itself, which moves first, and of its average, which is sampled from."""
        names = {"raw": "", "ema": "EMA "}
        shown = [f"{names[kind]}{self.scores[kind][1]:.1f}" for kind in names if kind in self.scores]
        return [f"FID {', '.join(shown)}"] if shown else []

    def on_checkpoint(self, step: int, path: Path) -> None:
        """Remember the newest checkpoint."""
        self.saved = f"saved at {step}"

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Remember a score; print an important event on a separate line."""
        if event["event"] == "evaluation":
            take_score(self.scores, event)
        if event["event"] in _SHOWN and self.display is not None:
            details = ", ".join(f"{name} {value}" for name, value in event.get("values", {}).items())
            if event["event"] == "first_non_finite":
                details = f"the {event['what']} {event['name']} is {event['value']}"
            if event["event"] == "alarm" and "cause" in event:
                details = event["cause"] + (f", which began at step {event['onset']}" if "onset" in event else "")
            details = event.get("words", details)
            line = f"{event['event']} at step {event['step']}{': ' + details if details else ''}"
            self.display.say(line, "bold red")

    def on_end(self, status: str) -> None:
        """Close the display."""
        if self.display is not None:
            self.display.close()
