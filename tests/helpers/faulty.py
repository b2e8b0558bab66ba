"""Runs a command in a forked process that has torch already, with a fault put in its way."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from programs import PROGRAMS

Command = tuple[str, list[str]]
"""A program's name and its arguments."""
Fault = Callable[[], None]
"""Called in the forked process before the command."""

MUTATING = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    """Its exit code; minus the signal's number where a signal killed it; 124 after the time limit."""
    text: str
    """What it wrote to its output and its errors."""
    operations: int
    """How many file operations were counted before it ended by itself."""

    @property
    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.text


def import_what_commands_import() -> None:
    """Import what the commands import late: a forked process then starts in no time."""
    import pandas  # noqa: F401
    import pyarrow.ipc  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch._dynamo  # noqa: F401

    import biggan.evaluation.pictures.grids
    import biggan.training.trainer  # noqa: F401
    import spectra.draw.figures  # noqa: F401


def run_forked(command: Command, fault: Fault | None = None, *, seconds: float = 120) -> Outcome:
    """Run `command` to its end in a forked process, after `fault` was called there."""
    program, arguments = command
    main = PROGRAMS[program]
    import_what_commands_import()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as count:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the test runner has a thread; the child needs none
            child = os.fork()
        if child == 0:
            _live(main, arguments, fault, out.fileno(), count.fileno())
        code = wait_for(child, seconds)
        out.seek(0)
        count.seek(0)
        return Outcome(code, out.read().decode(errors="replace"), int(count.read() or b"0"))


def start_forked(command: Command, out: int, fault: Fault | None = None) -> int:
    """Start `command` in a forked process that writes to the file descriptor `out`; return its process number."""
    program, arguments = command
    main = PROGRAMS[program]
    import_what_commands_import()
    child = os.fork()
    if child == 0:
        _live(main, arguments, fault, out, None)
    return child


def import_as_after(command: Command, folder: Path) -> Outcome:
    """Run `command` in a forked process, and import here what it imported."""
    os.environ["NAME_MODULES_IN"] = str(folder / "modules")
    try:
        outcome = run_forked(command)
    finally:
        del os.environ["NAME_MODULES_IN"]
    for name in (folder / "modules").read_text().split("\n"):
        if name not in sys.modules:
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(name)
    return outcome


def _live(
    main: Callable[[list[str]], int], arguments: list[str], fault: Fault | None, out: int, count: int | None
) -> None:
    """The forked process: never returns."""
    code = 1
    try:
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
        sys.stdin = open(os.devnull)  # noqa: SIM115
        sys.dont_write_bytecode = True
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        operations.begin()
        if fault is not None:
            fault()
        code = main(arguments) or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        operations.act = None
        with contextlib.suppress(BaseException):
            traceback.print_exc()
    finally:
        operations.act = None
        with contextlib.suppress(ValueError, OSError):  # what is written here is ours
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
        if named := os.environ.get("NAME_MODULES_IN"):
            Path(named).write_text("\n".join(sys.modules))
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        with contextlib.suppress(OSError):
            if count is not None:
                os.write(count, str(operations.seen).encode())
        os._exit(code & 255)


def wait_for(child: int, seconds: float) -> int:
    """The exit code of a forked process, or minus the signal that killed it; 124 where it was killed after so long."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 124
        time.sleep(0.002)


class _Operations:
    """Counts the operations of this process that change files, and acts before the chosen ones."""

    def __init__(self) -> None:
        self.seen, self.act, self.installed = 0, None, False

    def begin(self) -> None:
        self.seen = 0
        if not self.installed:
            self.installed = True
            sys.addaudithook(self._hear)
            flush = os.fsync

            def fsync(file: int) -> None:
                self._next("fsync")
                flush(file)

            os.fsync = fsync

    def _hear(self, event: str, arguments: Sequence[object]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not (flags or 0) & WRITING or str(path).startswith(("/dev/", "/proc/")):
                return
        elif event not in MUTATING:
            return
        self._next(event)

    def _next(self, event: str) -> None:
        self.seen += 1
        if self.act is not None:
            self.act(self.seen, event)


operations = _Operations()


def killed_before(number: int) -> Fault:
    """SIGKILL before the file operation `number` (from 1)."""
    return signalled_before(number, signal.SIGKILL)


def killed_after(seconds: float) -> Fault:
    """SIGKILL so many seconds after the command began."""

    def fault() -> None:
        signal.signal(signal.SIGALRM, lambda number, frame: os.kill(os.getpid(), signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, seconds)

    return fault


IN_TRAINING = "a signal came in training"
"""Written to the errors where the command has begun to listen for signals when one is sent."""


def signalled_before(number: int, sent: int) -> Fault:
    """A signal before the file operation `number`."""

    def act(seen: int, event: str) -> None:
        if seen == number:
            if sent != signal.SIGKILL and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
                os.write(2, f"{IN_TRAINING}\n".encode())
            os.kill(os.getpid(), sent)

    return lambda: setattr(operations, "act", act)


def refused(number: int, code: int, *, ever_after: bool = False) -> Fault:
    """The file operation `number` fails with the error `code`; with `ever_after` so do all later ones.

    Removing files goes on: it needs no space.
    """

    def act(seen: int, event: str) -> None:
        kept = event in ("os.remove", "os.rmdir") and code != errno.EROFS
        if not kept and (seen == number or (ever_after and seen > number)):
            raise OSError(code, os.strerror(code))

    return lambda: setattr(operations, "act", act)


def limited(kind: int, amount: int) -> Fault:
    """A limit of `resource`, such as RLIMIT_FSIZE in bytes."""

    def fault() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(kind, (amount, resource.getrlimit(kind)[1]))

    return fault


def open_descriptors() -> int:
    return max(int(name) for name in os.listdir("/proc/self/fd"))


def address_space() -> int:
    """The bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
