"""The warning that something recorded is damaged and left out, and how a command says it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class RecordDamage(UserWarning):
    """Part of a run's files is damaged and left out: which file, which part, and what that means."""


@contextmanager
def damage_in_words(program: str) -> Iterator[None]:
    """Within, print each warning of damage as one line on stderr, as a command does."""

    def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, RecordDamage):
            print(f"{program}: warning: {message}", file=sys.stderr)
        else:
            before(message, category, *place, **more)

    with warnings.catch_warnings():
        before, warnings.showwarning = warnings.showwarning, show
        yield
