"""Signals that ask a run to stop: the step is finished and the state saved first.

Ctrl-C; SIGTERM; SIGHUP, which a lost connection sends; SIGUSR1 and SIGUSR2, with which batch systems warn of the end.
Light to import: worker processes and launchers use it too.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from biggan.distributed.launch import launch_id

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_OF_THE_SURROUNDINGS = {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
"""Those that stay ignored where they were (`nohup`), and that somebody else may wait for too (submitit)."""

PASSED_ON_SECONDS = 2.0


class StopSignals:
    """While it is entered, a stop signal only sets `asked`, and a second Ctrl-C raises `KeyboardInterrupt`.

    A handler of SIGHUP, SIGUSR1 or SIGUSR2 that was there before is not lost: `pass_on` calls it, when the state is
    saved. (It may end the process, as submitit's does after it has queued the job again.) Outside the main thread,
    which alone may handle signals, nothing is changed.

    torchrun forwards a Ctrl-C that the terminal has already sent to its processes: that counts once, not twice.
    """

    def __init__(self) -> None:
        self.asked = False
        self._first = -math.inf
        self._before: dict[int, Any] = {}
        self._received: list[int] = []

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                before = signal.getsignal(number)
                ignored = before is signal.SIG_IGN and number in _OF_THE_SURROUNDINGS
                if before is not None and not ignored:  # None: it was not set from Python, and could not be set back
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        passed_on = launch_id() is not None and time.monotonic() - self._first < PASSED_ON_SECONDS
        if self.asked and number == signal.SIGINT and not passed_on:
            raise KeyboardInterrupt
        if not self.asked:
            self._first = time.monotonic()
        self.asked = True
        self._received.append(number)

    def pass_on(self) -> None:
        """Call the earlier handlers of the signals that came, once each and in order."""
        for number in dict.fromkeys(self._received):
            handler: Callable[[int, object], object] | Any = self._before[number]
            if number in _OF_THE_SURROUNDINGS and callable(handler):
                handler(number, None)


def leave_signals_to_the_parent(*, but: tuple[int, ...] = ()) -> None:
    """In a worker process: ignore stop signals, all `but` these.

    They may reach the whole group, and the parent needs its workers to finish the step.
    """
    for number in STOP_SIGNALS:
        if number not in but:
            signal.signal(number, signal.SIG_IGN)
