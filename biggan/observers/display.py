"""A progress display: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

PLAIN_LINE_SECONDS = 10.0


class ProgressDisplay:
    """Shows progress towards `total`, from `completed` on.

    The live bar opens with the first `show` and not before: it is a thread, and workers are forked until then.
    Elsewhere a line is printed at the first `show`, every ten seconds, and at the end. `heading` is rich's text of the
    first column, such as "step {task.completed}/{task.total}".
    """

    def __init__(self, heading: str, total: int, completed: int = 0) -> None:
        self.heading, self.total, self.first = heading, total, completed
        self._live: Any = None
        self._task: Any = None
        self._last_line = -math.inf

    def show(self, completed: int, rate: str, line: Callable[[], str], text: str = "") -> None:
        """Show the progress; `line` gives the plain line, `rate` and `text` are shown beside the bar."""
        if sys.stdout.isatty() and self._live is None:
            self._open()
        if self._live is not None:
            self._live.update(self._task, completed=completed, rate=rate, text=text)
        elif time.monotonic() - self._last_line > PLAIN_LINE_SECONDS or completed == self.total:
            self._last_line = time.monotonic()
            print(line(), flush=True)

    def say(self, line: str, style: str | None = None) -> None:
        """Print a separate line."""
        if self._live is not None:
            self._live.console.print(line, style=style, markup=False, highlight=False)
        else:
            print(line, flush=True)

    def close(self) -> None:
        """Close the bar, if one is open."""
        if self._live is not None:
            self._live.stop()

    def _open(self) -> None:
        from rich import progress
        from rich.table import Column

        self._live = progress.Progress(
            progress.TextColumn(self.heading),
            progress.BarColumn(bar_width=10),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),  # the bar gives way first
            progress.TextColumn("{task.fields[text]}"),
            speed_estimate_period=30,
        )
        self._live.start()
        self._task = self._live.add_task("", total=self.total, completed=self.first, rate="", text="")


def clock(seconds: float) -> str:
    """A time as minutes:seconds, or hours:minutes:seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
