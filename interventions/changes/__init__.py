"""The changes. A new one is a class in one of these files, or in your own file (see `Change`)."""

from __future__ import annotations

from interventions.changes import objective, optimization, state
from interventions.changes.base import CHANGES, Change, find_change, make_change, value_of, with_fields
from interventions.changes.code import ChangeFile, code_of, import_change, load_file
from interventions.changes.recorded import RecordedChange, recorded_change, with_code

__all__ = [
    "CHANGES",
    "Change",
    "ChangeFile",
    "RecordedChange",
    "code_of",
    "find_change",
    "import_change",
    "load_file",
    "make_change",
    "objective",
    "optimization",
    "recorded_change",
    "state",
    "value_of",
    "with_code",
    "with_fields",
]
