"""What a change is, how one is written, and where it is found by name."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from biggan.config import RENAMED, Config, flatten, from_dict, to_dict, unflatten
from biggan.errors import UserError, check_known
from interventions.changes.parse import arguments

if TYPE_CHECKING:
    from biggan.training.state import TrainingState

Network = Literal["G", "D"]
NetworkChoice = Literal["G", "D", "both"]
Amount = float | str
"""A number, or `x2`, `/2`: what it was, times or divided by a number."""

CHANGES: dict[str, type[Change]] = {}
"""Name -> class of every change that is known; a subclass of `Change` puts itself here."""


@dataclass(frozen=True)
class Change:
    """One difference between a branch and its parent: of the configuration, of the state, or of both.

    Your own change is a frozen dataclass in any file (`--change-file my.py`):

        @dataclass(frozen=True)
        class Shrink(Change, name="shrink"):
            "Multiply D's weights by a factor."
            factor: float

            def operate(self, state, config):
                with torch.no_grad():
                    for weight in state.D.parameters():
                        weight.mul_(self.factor)
                return {"factor": self.factor}

    The dataclass's fields are the arguments of the change: `--change shrink=0.5`, or in a plan
    `shrink: 0.5` or `shrink: {factor: 0.5}`.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    """Where the paper makes this change; empty if it does not."""

    def __init_subclass__(cls, name: str = "", paper: str = "", **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.name, cls.paper = name, paper
        if not name:
            return  # a base of others
        other = CHANGES.get(name)
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise UserError(
                f"two changes are called '{name}': {other.__module__}.{other.__qualname__} and "
                f"{cls.__module__}.{cls.__qualname__}. Give one of them another name."
            )
        CHANGES[name] = cls

    def fields(self, config: Config) -> dict[str, Any]:
        """The fields of the configuration that this change sets, by dotted name; none by default."""
        return {}

    def operate(self, state: TrainingState, config: Config) -> dict[str, Any]:
        """Change `state` in place, with the changed `config`; return facts for the report."""
        return {}

    def check(self, state: TrainingState, config: Config) -> None:
        """Raise `UserError` if `operate` would fail on this state. Called before anything is written."""

    @property
    def operates(self) -> bool:
        """Whether this change acts on the state."""
        return type(self).operate is not Change.operate

    @property
    def fields_may_end(self) -> bool:
        """Whether the change can end: one that sets fields can, one that only acts on the state cannot."""
        return type(self).fields is not Change.fields

    def touches(self) -> set[str]:
        """The parts of the state that it acts on, in words: two changes at one step may not act on the same part."""
        return {self.name} if self.operates else set()

    @classmethod
    def read(cls, value: Any) -> Self:
        """The change with the arguments `value`: a text as on the command line, a number, or a mapping."""
        return cls(**arguments(cls, value, cls.name or cls.__name__))

    def spec(self) -> dict[str, Any]:
        """The change as a plan writes it: {name: arguments}, without arguments that are None."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {self.name: {key: value for key, value in given.items() if value is not None}}

    def describe(self) -> str:
        """In a few words, for tables and directory names: `freeze D`, `lr G=x2`."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        given = {key: value for key, value in self.spec()[self.name].items() if value != defaults[key]}
        network = self.spec()[self.name].get("network")
        given.pop("network", None)
        first = next(iter(given), None)
        words = ", ".join(_short(value) if key == first else f"{key} {_short(value)}" for key, value in given.items())
        return " ".join(part for part in (self.name, network, words) if part)


def make_change(name: str, value: Any) -> Change:
    """The change called `name` with the arguments `value`: a text as on the command line, a number, or a mapping.

    A user's own change is known once its file has been loaded (`--change-file`). Raises `UserError` for an unknown name
    (with the nearest) and for arguments that it does not take.
    """
    return find_change(name).read(value)


def find_change(name: str) -> type[Change]:
    """The class of a change by its name. Raises `UserError` for a name of code, which is never looked up here."""
    if ":" in name:
        place, _, class_name = name.rpartition(":")
        raise UserError(
            f"the change '{name}' names code, which is taken from the command line alone. Give --change-file {place}, "
            f"and write the name that {class_name} has there."
        )
    check_known(name, CHANGES, "change")
    return CHANGES[name]


def amount(given: Amount, before: float | None, what: str) -> float:
    """`given` as a number; `x2` and `/2` are relative to `before`."""
    operation, number = (given[:1], given[1:]) if isinstance(given, str) else ("", "")
    try:
        if operation and operation in "x/" and number:
            if before is None:
                raise UserError(f"{what} is null, so '{given}' has nothing to refer to. Give a number.")
            factor = float(number)
            found = before * factor if operation == "x" else before / factor
        else:
            found = given if isinstance(given, (int, float)) else float(given)
        if not math.isfinite(found):
            raise ValueError
    except (ValueError, ArithmeticError) as error:
        raise UserError(
            f"{what} is '{given}', expected a number, or x2 or /2 for a multiple of {before}, that is finite."
        ) from error
    return found


def whole(given: Amount, before: float | None, what: str) -> int:
    """`given` as a whole number; `x2` and `/2` are relative to `before`."""
    number = amount(given, before, what)
    if number != int(number):
        raise UserError(f"{what} would be {number}, expected a whole number.")
    return int(number)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def each(network: str) -> tuple[str, ...]:
    """The networks meant by "G", "D" or "both"."""
    return ("G", "D") if network == "both" else (network,)


def value_of(config: Config, field: str) -> Any:
    """A field's value by its dotted name."""
    found: Any = config
    for part in field.split("."):
        found = getattr(found, part)
    return found


def with_fields(config: Config, values: dict[str, Any]) -> Config:
    """The configuration with these fields, by dotted name. Raises `UserError` for unknown ones and bad values."""
    flat = flatten(to_dict(config))
    values = {RENAMED.get(name, name): value for name, value in values.items()}
    for name in values:
        check_known(name, flat, "configuration field")
    return from_dict(unflatten(flat | values))
