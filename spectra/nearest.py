"""Suggests the nearest known name for a misspelt one, and the nearest runs for a path that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

MARKS_OF_RUN = ("config.yaml", "records", "events.jsonl", "plan.json")
"""What lies in the directory of a run, or of a plan."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or a full stop where none is near."""
    match = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else "."


def missing(path: str | Path) -> str | None:
    """What to say of a run or a file that does not exist: that, and what is like it in its folder (runs, or files of
    its kind). None where it exists. Of `runs/a/file` without `runs/a` it says that there is no `runs/a`."""
    path = Path(path)
    if path.exists():
        return None
    lost = next((one for one in reversed(path.parents) if not one.exists()), path)
    known = _like(lost, path)
    said = f"{path} does not exist" + (f": there is no {lost}." if lost != path else ".")
    if not known:
        return said
    near = get_close_matches(lost.name, known, n=3, cutoff=0.0)
    names = ", ".join(str(lost.parent / name) for name in near)
    more = f" (the nearest of {len(known)})" if len(known) > len(near) else ""
    return f"{said} Beside it: {names}{more}."


def _like(lost: Path, path: Path) -> list[str]:
    """The names beside `lost` that could have been meant: files with the suffix of `path` if it is that file, runs."""
    found: list[str] = []
    with suppress(OSError):
        for one in lost.parent.iterdir():
            with suppress(OSError):
                is_file = lost == path and one.suffix == path.suffix != "" and one.is_file()
                if is_file or any((one / mark).exists() for mark in MARKS_OF_RUN):
                    found.append(one.name)
    return sorted(found) or (_folders_like(lost) if lost != path else [])


def _folders_like(lost: Path) -> list[str]:
    with suppress(OSError):
        return get_close_matches(lost.name, [one.name for one in lost.parent.iterdir() if one.is_dir()])
    return []
