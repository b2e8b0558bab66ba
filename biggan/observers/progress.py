"""The progress display of training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.observers.display import ProgressDisplay
from biggan.training.observer import Observer

if TYPE_CHECKING:
    from biggan.training.trainer import Trainer


_SHOWN = ("non_finite", "first_non_finite", "spike", "alarm", "collapse", "recovered", "notify_failed")


class Progress(Observer):
    """Step, rate, time left, losses, last checkpoint."""

    acts_last = True  # to show this step's checkpoint

    display: ProgressDisplay | None = None

    def on_start(self, trainer: Trainer) -> None:
        """Begin to count."""
        self.began, self.first, self.total = time.monotonic(), trainer.state.step, trainer.config.steps
        self.last_checkpoint = f"step {self.first}" if self.first else "none yet"
        self.display = ProgressDisplay("step {task.completed}/{task.total}", self.total, self.first)

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """Show the step."""
        assert self.display is not None
        rate = (step - self.first) / max(time.monotonic() - self.began, 1e-9)
        losses = f"D {stats['loss/D_real'] + stats['loss/D_fake']:.3f}  G {stats['loss/G']:+.3f}"

        def line() -> str:
            left = _clock((self.total - step) / rate)
            return (
                f"step {step}/{self.total}  {rate:.1f} steps/s  {left} left  loss {losses}  "
                f"last checkpoint {self.last_checkpoint}"
            )

        self.display.show(step, f"{rate:.1f} steps/s", line, f"{losses}  saved {self.last_checkpoint}")

    def on_checkpoint(self, step: int, path: Path) -> None:
        """Remember the newest checkpoint."""
        self.last_checkpoint = f"step {step}"

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Print an important event on a separate line."""
        if event["event"] in _SHOWN and self.display is not None:
            details = ", ".join(f"{name} {value}" for name, value in event.get("values", {}).items())
            if event["event"] == "first_non_finite":
                details = f"the {event['what']} {event['name']} is {event['value']}"
            details = event.get("words", details)
            line = f"{event['event']} at step {event['step']}{': ' + details if details else ''}"
            self.display.say(line, "bold red")

    def on_end(self, status: str) -> None:
        """Close the display."""
        if self.display is not None:
            self.display.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
