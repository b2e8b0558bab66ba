"""What the user sees while training: a live display on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.training.observer import Observer

if TYPE_CHECKING:
    from biggan.training.trainer import Trainer

PLAIN_LINE_SECONDS = 10.0


class Progress(Observer):
    """Step, rate, time left, losses, last checkpoint."""

    live: Any = None

    def on_start(self, trainer: Trainer) -> None:
        """Open the display."""
        self.trainer, self.total = trainer, trainer.config.steps
        self.began, self.first = time.monotonic(), trainer.state.step
        self.last_line = 0.0
        self.last_checkpoint = f"step {self.first}" if self.first else "none yet"
        self.live = _make_live() if sys.stdout.isatty() else None
        if self.live is not None:
            self.live.start()
            self.task = self.live.add_task("", total=self.total, completed=self.first, text="", rate="")

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """Show the step."""
        rate = (step - self.first) / max(time.monotonic() - self.began, 1e-9)
        losses = f"D {stats['loss/D_real'] + stats['loss/D_fake']:.3f}  G {stats['loss/G']:+.3f}"
        if self.live is not None:
            text = f"{losses}  saved {self.last_checkpoint}"
            self.live.update(self.task, completed=step, text=text, rate=f"{rate:.1f} steps/s")
        elif time.monotonic() - self.last_line > PLAIN_LINE_SECONDS or step == self.total:
            self.last_line = time.monotonic()
            left = _clock((self.total - step) / rate)
            print(
                f"step {step}/{self.total}  {rate:.1f} steps/s  {left} left  loss {losses}  "
                f"last checkpoint {self.last_checkpoint}",
                flush=True,
            )

    def on_checkpoint(self, step: int, path: Path) -> None:
        """Remember the newest checkpoint."""
        self.last_checkpoint = f"step {step}"

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Say what matters in a line of its own."""
        if event["event"] in ("non_finite", "spike", "alarm", "collapse", "recovered"):
            details = ", ".join(f"{name} {value}" for name, value in event.get("values", {}).items())
            line = f"{event['event']} at step {event['step']}{': ' + details if details else ''}"
            if self.live is not None:
                self.live.console.print(line, style="bold red")
            else:
                print(line, flush=True)

    def on_end(self, status: str) -> None:
        """Close the display."""
        if self.live is not None:
            self.live.stop()


def _make_live() -> Any:
    from rich import progress

    return progress.Progress(
        progress.TextColumn("step {task.completed}/{task.total}"),
        progress.BarColumn(bar_width=24),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[text]}"),
        speed_estimate_period=30,
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
