"""Finds files at any depth below a folder, for all sources."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from biggan.data.notes import note_of_data
from biggan.data.sources.junk import is_junk_folder
from biggan.errors import UserError


def walk(path: Path, *, above: tuple[Path, ...] = ()) -> Iterator[os.DirEntry[str]]:
    """The files at any depth below `path`, in a fixed order; names that begin with a dot are
    skipped, and folders of thumbnails and leftovers (`is_junk_folder`).

    Links are followed, but no folder is entered twice, nor one of those `above`, because links may form a cycle. Raises
    `UserError` for a folder that cannot be read.
    """
    visited = {_number(folder) for folder in above}
    yield from _walk(str(path), visited)


def _walk(path: str, visited: set[tuple[int, int]]) -> Iterator[os.DirEntry[str]]:
    try:
        number = _number(path)
        if number in visited:
            return
        visited.add(number)
        with os.scandir(path) as entries:
            listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
        folders = {entry.name for entry in listed if entry.is_dir()}
        listed = [entry for entry in listed if entry.name not in folders or not is_junk_folder(entry.name)]
    except OSError as error:
        raise UserError(
            f"cannot read the folder {path}: {error.strerror or error}. Make it readable, or move it away."
        ) from error
    for entry in listed:
        if entry.name in folders:
            yield from _walk(entry.path, visited)
        elif _can_be_read(entry):
            yield entry
        else:
            note_of_data(f"{entry.path} is left out: it is a pipe, a socket or a device, and no file")


def _can_be_read(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file, or a link to none, of which reading will say so. Reading a pipe would never end."""
    try:
        return entry.is_file() or not entry.stat()
    except OSError:
        return True


def _number(path: str | Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
