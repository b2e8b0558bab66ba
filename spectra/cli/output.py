"""Output that cannot break a command: a reader that goes away, and characters that a terminal lacks."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class _Output:
    """A text stream of which nothing more is written from the first write that its reader is no longer there for.

    That is an error of a pipe, a terminal or a socket; of a file (a full disk) too if `everything`. Characters that the
    stream's encoding lacks are written as escapes.
    """

    def __init__(self, stream: TextIO, everything: bool) -> None:
        self._stream, self._everything = stream, everything
        self._dropped = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if not self._dropped:
            try:
                self._write(text)
            except OSError as error:
                self._drop(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self._dropped:
            try:
                self._stream.flush()
            except OSError as error:
                self._drop(error)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def _drop(self, error: OSError) -> None:
        descriptor: int | None = None
        with suppress(OSError, ValueError):  # also io.UnsupportedOperation, of a stream in memory
            descriptor = self._stream.fileno()
        if not self._everything and descriptor is not None and stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise error
        self._dropped = True
        if descriptor is not None:  # what is still buffered would be an error again when the process ends
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)


@contextmanager
def unbreakable_output(*, everything: bool = False) -> Iterator[None]:
    """In it, output is dropped once its reader is gone (`| head`, a closed terminal), and no character raises.

    A file that cannot be written (`> FILE` on a full disk) raises `OSError` still, unless `everything` may be lost.
    Streams that were closed at the start (`>&-`) are as good as open.
    """
    _open_what_is_closed()
    before = sys.stdout, sys.stderr
    mine = [_Output(stream or open(os.devnull, "w"), everything) for stream in before]  # noqa: SIM115
    sys.stdout, sys.stderr = mine
    try:
        yield
    finally:
        for stream in mine:
            with suppress(OSError, ValueError):  # a command that must know flushes before
                stream.flush()
        sys.stdout, sys.stderr = before


def _open_what_is_closed() -> None:
    """Keep the numbers 0, 1 and 2 from files that are opened later: what is printed would land in them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
