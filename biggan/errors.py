"""The one kind of error that is the user's to mend: it says what came, what was expected, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The command line prints it as one paragraph and exits with code 2."""


class ReportedByOtherRank(UserError):
    """Bad input that another of several processes has told the user of already."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or a full stop where none is near."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else "."


def check_known(name: str, known: Iterable[str], what: str) -> None:
    """Raise `UserError` unless `name` is one of `known`."""
    known = list(known)
    if name not in known:
        raise UserError(f"unknown {what} '{name}'{nearest(name, known)} Known: {', '.join(known)}.")
