"""The journal with which a killed preparation continues, and the lock against other processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from biggan.errors import UserError
from biggan.run.files import Lock
from spectra.record.files import flush, new_folder

_NAME = "done.jsonl"


def lock(folder: Path) -> Lock:
    """Keep other processes from making `folder` at the same time, until the lock is closed.

    It is a file beside the folder, so that renaming the folder does not affect it; it is removed on release.
    Raises `UserError` where another process has it.
    """
    try:
        with new_folder(folder.parent):
            return Lock(folder.with_name(f"{folder.name}.lock"), remove=True)
    except BlockingIOError as error:
        raise UserError(f"another biggan-data prepare is writing {folder}. Wait for it, or stop it.") from error
    except OSError as error:
        raise UserError(f"cannot write in {folder.parent}: {error.strerror}. Choose another --out.") from error


class Journal:
    """A file in a folder: one header that says what is being made, then one line for each finished piece.

    `header` is None where nothing usable is there yet, else the header of whoever began; `entries` are the finished
    pieces. A line torn by a kill is left out. Whoever writes it holds the folder's `Lock`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / _NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115 - one line after another
        except OSError as error:
            raise UserError(f"cannot write in {folder}: {error.strerror}. Choose another --out.") from error
        self._file.seek(0)
        self.header, self.entries = _parse(self._file.read())

    def begin(self, header: dict[str, Any]) -> None:
        """Delete all entries and begin again."""
        self._file.truncate(0)
        self.header, self.entries = header, []
        self._write(header)

    def add(self, entry: dict[str, Any]) -> None:
        """Record a finished piece; it is on disk when this returns."""
        self.entries.append(entry)
        self._write(entry)

    def close(self) -> None:
        """Close the file, and keep it."""
        self._file.close()

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink()
        self.close()

    def _write(self, entry: dict[str, Any]) -> None:
        # Each line brings its own newline before it, so that one torn by a kill does not spoil the next.
        self._file.write("\n" + json.dumps(entry))
        flush(self._file)


def _parse(text: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    found = []
    for line in text.split("\n"):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        found += [value] if isinstance(value, dict) else []
    return (found[0], found[1:]) if found and "identity" in found[0] else (None, [])
