"""How a field of the configuration is declared and checked."""

from __future__ import annotations

import dataclasses
import functools
import math
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from biggan.errors import UserError
from spectra.nearest import nearest


def setting(default: Any, *, numbers: bool = True, low: float | None = None, high: float | None = None) -> Any:
    """Declare a field: its default (or a function that makes it), whether it decides the numbers, and the closed range
    [low, high] it lies in."""
    metadata = {"numbers": numbers, "low": low, "high": high}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


hints_of = functools.cache(get_type_hints)
"""The types of a dataclass's fields by name."""


class RangeError(UserError):
    """A value out of its field's range."""


WHY_NOT: dict[tuple[str, Any], str] = {
    (
        "device",
        "mps",
    ): " PyTorch has no float64 on Apple's GPUs (mps), and gradient norms, scores and the certificates "
    "of singular values need it. Give cpu."
}
"""Why a value that somebody may expect is no choice, by field and value."""


class Section:
    """Base of the configuration's dataclasses: checks ranges and choices when one is made."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            _check_range(field, getattr(self, field.name))
        kind: Any = type(self)
        for name, hint in hints_of(kind).items():
            if get_origin(hint) is Literal:
                _check_choice(name, getattr(self, name), get_args(hint))


def drop_network(section: Any, network: str) -> None:
    """Let `section.layers` name the layers of "G" or "D" as the record does, too: G.linear is that network's linear."""
    if section.layers is not None:
        object.__setattr__(section, "layers", [name.removeprefix(f"{network}.") for name in section.layers])


def has_type(value: Any, hint: Any) -> bool:
    """Whether a value read from a file may stand in a field of this type. Literals are checked as choices."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(has_type(value, member) for member in inner)
    if origin is list:
        return isinstance(value, (list, tuple)) and all(has_type(one, inner[0]) for one in value)
    if origin is tuple:
        wanted = (inner[0],) * len(value) if isinstance(value, (list, tuple)) and inner[-1] is ... else inner
        same = isinstance(value, (list, tuple)) and len(value) == len(wanted)
        return same and all(map(has_type, value, wanted))
    if origin is dict:
        return isinstance(value, dict) and all(
            has_type(k, inner[0]) and has_type(v, inner[1]) for k, v in value.items()
        )
    if hint in (int, float):
        if isinstance(value, int):
            return not isinstance(value, bool) and abs(value) < 2**63
        return hint is float and isinstance(value, float)
    return origin is Literal or not isinstance(hint, type) or isinstance(value, hint)


def _check_choice(name: str, value: Any, choices: tuple) -> None:
    if value not in choices:
        hint = nearest(str(value), map(str, choices))
        why = WHY_NOT.get((name, value), "")
        raise RangeError(f"{name} is {value!r}, expected one of {', '.join(map(str, choices))}{hint}{why}")


def _check_range(field: dataclasses.Field, value: Any) -> None:
    low, high = field.metadata.get("low"), field.metadata.get("high")
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
    for number in values:
        if isinstance(number, float) and not math.isfinite(number):
            raise RangeError(f"{field.name} is {number}, expected a finite number.")
        if number is None or (low is None and high is None):
            continue
        # Written so that NaN is out of every range.
        if not ((low is None or number >= low) and (high is None or number <= high)):
            wanted = f"at least {low}" if high is None else f"at most {high}" if low is None else f"in [{low}, {high}]"
            raise RangeError(f"{field.name} is {number}, expected {wanted}.")
