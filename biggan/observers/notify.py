"""`--notify`: runs a command of the user's at each alarm."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from biggan.errors import UserError
from biggan.training.observer import Observer

if TYPE_CHECKING:
    from biggan.training.trainer import Trainer

TIME_LIMIT_SECONDS = 30.0
_LAST_WORDS = 200


class Notify(Observer):
    """Starts `command` at each alarm, with the event and its `run` as one line of JSON on its standard input.

    No shell reads the command. Training goes on beside it, and waits for it only at the end. It has
    `TIME_LIMIT_SECONDS`, and is killed after that, with all that it has started. If it cannot be started, ends with
    another code than 0, or is killed, a `notify_failed` event gives the reason and the end of its error output.

    Raises `UserError` for a command that is empty or has an open quotation mark.
    """

    def __init__(self, command: str, *, limit: float = TIME_LIMIT_SECONDS) -> None:
        try:
            self.command = shlex.split(command)
        except ValueError as error:
            raise UserError(
                f"--notify is '{command}', which cannot be read: {error}. Quote it as for a shell."
            ) from error
        if not self.command:
            raise UserError("--notify is empty, expected a program, with arguments if it needs any.")
        self.limit = limit
        self._running: list[_Running] = []

    def on_start(self, trainer: Trainer) -> None:
        """Remember where events go."""
        self.trainer = trainer

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Start the command at an alarm."""
        if event["event"] != "alarm":
            return
        line = json.dumps({**event, "run": str(self.trainer.run.path.resolve())}) + "\n"
        # A pipe would fill up, or stay open in what the command has started. The file outlives this call.
        errors = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # so that Ctrl-C does not reach it
            )
        except OSError as error:
            errors.close()
            self._failed(f"it cannot be started: {error}")
            return
        assert process.stdin is not None
        with suppress(OSError), process.stdin as standard_input:  # it need not read it
            standard_input.write(line.encode())
        self._running.append(_Running(process, errors, time.monotonic() + self.limit))

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """See which have ended."""
        if self._running:
            self._running = [one for one in self._running if not self._has_ended(one)]

    def on_end(self, status: str) -> None:
        """Wait for those that still run, up to their time limit; after an error, kill them."""
        for one in self._running:
            if status == "failed":
                one.kill()
                continue
            while not self._has_ended(one):
                time.sleep(0.02)
        self._running = []

    def _has_ended(self, one: _Running) -> bool:
        code = one.process.poll()
        if code is None and time.monotonic() < one.deadline:
            return False
        if code is None:
            one.kill()
            reason = f"it ran longer than {self.limit:g} seconds and was killed"
        elif code:
            reason = f"it ended with code {code}" if code > 0 else f"it was killed by {signal.Signals(-code).name}"
        else:
            reason = ""
        said = one.last_words()
        if reason:
            self._failed(reason + (f": {said}" if said else ""))
        return True

    def _failed(self, reason: str) -> None:
        self.trainer.emit("notify_failed", words=f"--notify {self.command[0]}: {reason}")


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    deadline: float

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def last_words(self) -> str:
        """The end of its error output, closed then."""
        with self.errors as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - _LAST_WORDS, 0))
            return " ".join(file.read().decode(errors="replace").split())
