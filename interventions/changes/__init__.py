"""The changes. A new one is a class in one of these files, or in your own file (see `Change`)."""

from __future__ import annotations

from interventions.changes import objective, optimization, state
from interventions.changes.base import CHANGES, Change, find_change, load_file, make_change, value_of, with_fields

__all__ = [
    "CHANGES",
    "Change",
    "find_change",
    "load_file",
    "make_change",
    "objective",
    "optimization",
    "state",
    "value_of",
    "with_fields",
]
