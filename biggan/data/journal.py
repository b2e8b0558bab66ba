"""The list of what is finished, by which a killed preparation goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from biggan.errors import UserError

NAME = "done.jsonl"


class Journal:
    """A locked file in a folder: one header that says what is being made, then one line for each finished piece.

    `header` is None where nothing usable is there yet, else the header of whoever began; `entries` are the finished
    pieces. A line torn by a kill is left out. Raises `UserError` where another process is at work.
    """

    def __init__(self, folder: Path) -> None:
        import fcntl

        self.path = folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115 - open as long as the lock is held
        except OSError as error:
            raise UserError(f"cannot write in {folder}: {error.strerror}. Give another --out.") from error
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, not inherited by workers
        except OSError as error:
            self._file.close()
            raise UserError(f"another biggan-data prepare is at work in {folder}. Wait for it, or stop it.") from error
        self._file.seek(0)
        self.header, self.entries = _parse(self._file.read())

    def begin(self, header: dict[str, Any]) -> None:
        """Forget everything and begin anew."""
        self._file.truncate(0)
        self.header, self.entries = header, []
        self._write(header)

    def add(self, entry: dict[str, Any]) -> None:
        """A piece is finished; on the disk when this returns."""
        self.entries.append(entry)
        self._write(entry)

    def close(self) -> None:
        """Release the lock."""
        self._file.close()

    def remove(self) -> None:
        """Delete the file and release the lock."""
        self.path.unlink()
        self.close()

    def _write(self, entry: dict[str, Any]) -> None:
        # Each line brings its own newline before it, so that one torn by a kill does not spoil the next.
        self._file.write("\n" + json.dumps(entry))
        self._file.flush()
        os.fsync(self._file.fileno())


def _parse(text: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    found = []
    for line in text.split("\n"):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return (found[0], found[1:]) if found and "identity" in found[0] else (None, [])
