"""Where a monitor's numbers and alarms go besides its record, and what becomes of a write that fails."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from spectra.monitor.measuring import error_in_words

Sink = Callable[[dict[str, float], int], Any]
"""Any `log(numbers, step)`: `wandb.log`, `mlflow.log_metrics`, ..."""


class Outlets:
    """Sinks, and whom alarms are told to. One that raises is warned about once, and called again all the same.

    Raises:
        TypeError: one of them cannot be called.
    """

    def __init__(self, sinks: Iterable[Sink], on_alarm: Callable[[Mapping[str, Any]], Any] | None) -> None:
        self._sinks = [sinks] if callable(sinks) else list(sinks)
        self._on_alarm = on_alarm
        wrong = [sink for sink in self._sinks if not callable(sink)]
        if wrong:
            raise TypeError(f"a sink is a function of (numbers, step), such as wandb.log; got {wrong[0]!r}")
        if on_alarm is not None and not callable(on_alarm):
            raise TypeError(f"on_alarm is a function of an event, a dict; got {on_alarm!r}")
        self._warned: set[int] = set()

    def send(self, step: int, numbers: Mapping[str, float]) -> None:
        """Give every sink a step's numbers."""
        for sink in self._sinks if numbers else []:
            self._call(sink, "the sink", dict(numbers), step)

    def alarm(self, event: Mapping[str, Any]) -> None:
        """Tell of an alarm."""
        if self._on_alarm is not None:
            self._call(self._on_alarm, "on_alarm", dict(event))

    def _call(self, function: Callable[..., Any], what: str, *arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception as error:
            if id(function) not in self._warned:
                self._warned.add(id(function))
                name = getattr(function, "__qualname__", repr(function))
                warn(f"{what} {name} failed, and training goes on: {error_in_words(error)}. This is said once")


class Writes:
    """Runs what writes to a run directory.

    Args:
        run: the run directory.
        on_failure: what becomes of an `OSError` (a full disk): "raise", or "warn", once; the record then ends there.

    Raises:
        ValueError: `on_failure` is something else.
    """

    def __init__(self, run: Path, on_failure: str) -> None:
        if on_failure not in ("raise", "warn"):
            raise ValueError(f"on_failed_write is 'raise' or 'warn'; got {on_failure!r}")
        self._run, self._raises = run, on_failure == "raise"
        self.have_failed = False

    def __call__(self, write: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        """Call `write`."""
        try:
            write(*arguments, **keywords)
        except OSError as error:
            if self._raises:
                raise
            if not self.have_failed:
                self.have_failed = True
                warn(
                    f"spectra cannot write to {self._run}: {error_in_words(error)}. Training goes on, and what is "
                    "measured from here on may be missing there. This is said once"
                )


def warn(words: str) -> None:
    """Warn, also where warnings are errors: then on stderr."""
    try:
        warnings.warn(words, RuntimeWarning, stacklevel=4)
    except RuntimeWarning:
        print(f"warning: {words}", file=sys.stderr)
