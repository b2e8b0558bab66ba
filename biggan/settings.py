"""How a field of the configuration is declared and checked."""

from __future__ import annotations

import dataclasses
from typing import Any

from biggan.errors import UserError


def setting(default: Any, *, numbers: bool = True, low: float | None = None, high: float | None = None) -> Any:
    """Declare a field: its default, whether it decides the numbers, and the closed range [low, high] it lies in."""
    metadata = {"numbers": numbers, "low": low, "high": high}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class RangeError(UserError):
    """A value out of its field's range."""


class Section:
    """Base of the configuration's dataclasses: checks the ranges when one is made."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            _check_range(field, getattr(self, field.name))


def _check_range(field: dataclasses.Field, value: Any) -> None:
    low, high = field.metadata.get("low"), field.metadata.get("high")
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if number is None or (low is None and high is None):
            continue
        # Written so that NaN is out of every range.
        if not ((low is None or number >= low) and (high is None or number <= high)):
            wanted = f"at least {low}" if high is None else f"at most {high}" if low is None else f"in [{low}, {high}]"
            raise RangeError(f"{field.name} is {number}, expected {wanted}.")
