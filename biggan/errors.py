"""The one kind of error that is the user's to fix: it says what came, what was expected, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from spectra.nearest import missing, nearest


class UserError(Exception):
    """Bad input. The command line prints it as one paragraph and exits with code 2."""


class ReportedByOtherRank(UserError):
    """Bad input that another of several processes has told the user of already."""


def check_exists(place: str | Path) -> None:
    """Raise `UserError` where there is no such run or checkpoint, with those that are near."""
    if said := missing(place):
        raise UserError(said)


def check_known(name: object, known: Iterable[str], what: str) -> None:
    """Raise `UserError` unless `name` is one of `known`."""
    known = list(known)
    if name not in known:
        said = f"{name!s:.100}"
        raise UserError(f"unknown {what} '{said}'{nearest(said, known)} Known: {', '.join(known)}.")
