"""What opening a data source has to say: what it leaves out, and how it reads what could be read in several ways."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_collected: ContextVar[list[str] | None] = ContextVar("_collected", default=None)


def note_of_data(text: str) -> None:
    """Say something of the data, once, to whoever collects it (`notes_of_data`); else it is dropped."""
    notes = _collected.get()
    if notes is not None and text not in notes:
        notes.append(text)


@contextmanager
def notes_of_data() -> Iterator[list[str]]:
    """What is said inside, in order."""
    notes: list[str] = []
    token = _collected.set(notes)
    try:
        yield notes
    finally:
        _collected.reset(token)


def classes_in_words(count: int) -> str:
    """1 class; 1,000 classes."""
    return f"{count:,} class{'' if count == 1 else 'es'}"
