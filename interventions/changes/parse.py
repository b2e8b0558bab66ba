"""Reading a change's arguments: `x2`, `G=x2`, or a YAML mapping such as `{network: G, strength: 0.1, target: 1}`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from biggan.config.yaml_text import read_yaml_text
from biggan.errors import UserError, check_known
from spectra.nearest import nearest

_NETWORKS = ("G", "D", "both")
WORDS = {float: "a number", int: "a whole number", str: "a text"}


def arguments(kind: type, value: Any, name: str) -> dict[str, Any]:
    """The keyword arguments of the dataclass `kind` that `value` means, each with its field's type.

    A mapping, or a text that begins with a brace and is one in YAML, gives them by name. Any other text or number is
    the first field; `G=`, `D=` or `both=` before it is the field `network`. Raises `UserError` for unknown or missing
    names and for values of another type.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    given = _by_name(value, list(fields), name)
    for key in given:
        check_known(key, fields, f"argument of the change {name}:")
    missing = [key for key, field in fields.items() if key not in given and field.default is dataclasses.MISSING]
    if missing:
        raise UserError(f"the change {name} needs {' and '.join(missing)}. Its arguments: {', '.join(fields)}.")
    hints = get_type_hints(kind)
    return {key: _converted(hints[key], one, f"{name}: {key}") for key, one in given.items()}


def _by_name(value: Any, fields: list[str], name: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(key): one for key, one in value.items()}
    text = str(value)
    if text.startswith("{"):
        return _mapping(text, name)
    given: dict[str, Any] = {}
    head, equals, rest = text.partition("=")
    if equals and head in _NETWORKS and "network" in fields:
        given["network"], text = head, rest
    elif text in _NETWORKS and "network" in fields:
        return {"network": text}
    first = next((field for field in fields if field != "network"), "network")
    _refuse_earlier_form(text, given, fields, name)
    return given | ({first: text} if text else {})


def _refuse_earlier_form(text: str, given: Mapping[str, str], fields: list[str], name: str) -> None:
    """Raise `UserError` for `1,key:value`, which version 0.1 read, with the mapping that means the same."""
    free = [field for field in fields if field not in given and (field != "network" or len(fields) == 1)]
    found, named = dict(given), False
    for part in text.split(","):
        key, colon, value = part.partition(":")
        if colon and key in fields:
            found[key], named = value, True
        elif free:
            found[free[0]] = part
        free = [field for field in free if field not in found]
    if named or ("," in text and len(found) - len(given) > 1 and not text.startswith(("/", "."))):
        mapping = ", ".join(f"{key}: {value}" for key, value in found.items())
        raise UserError(f"the change {name} takes one value, or a mapping. Instead of '{text}' write '{{{mapping}}}'.")


def _mapping(text: str, name: str) -> dict[str, Any]:
    found = read_yaml_text(text, f"the arguments of {name}")
    if not isinstance(found, dict):
        raise UserError(f"the arguments of {name} are '{text}', expected a mapping such as {{key: value}}.")
    return {str(key): one for key, one in found.items()}


def _converted(hint: Any, value: Any, where: str) -> Any:
    """`value` as the annotation `hint` asks for: of a union, as the first member that accepts it."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if NoneType in members and value in (None, "none", "null"):
        return None
    members = tuple(member for member in members if member is not NoneType)
    for member in members:
        try:
            return _as(member, value)
        except (TypeError, ValueError, OverflowError):
            continue
    choices = [str(choice) for member in members if get_origin(member) is Literal for choice in get_args(member)]
    if choices:
        raise UserError(f"{where} is '{value}', expected one of {', '.join(choices)}{nearest(str(value), choices)}")
    raise UserError(f"{where} is '{value}', expected {' or '.join(map(_in_words, members))}.")


def _as(kind: Any, value: Any) -> Any:
    """`value` as one plain type. Raises `ValueError`, `TypeError` or `OverflowError` where it is none."""
    if kind is Any:
        return value
    if get_origin(kind) is Literal:
        word = {True: "on", False: "off"}[value] if isinstance(value, bool) else value  # as YAML reads on and off
        return get_args(kind)[get_args(kind).index(word)]
    if get_origin(kind) is list:
        items = value if isinstance(value, list) else _sequence(str(value))
        return [_as(get_args(kind)[0], item) for item in items]
    if isinstance(value, (bool, Mapping, list)):
        raise TypeError
    number = value if kind is str else float(value)
    if kind is not str and (math.isnan(number) or (kind is int and number != int(number))):
        raise ValueError
    return kind(number)


def _sequence(text: str) -> list[Any]:
    """`[a, b]`, or a single item. Raises `ValueError` for what only begins like a list."""
    try:
        found = read_yaml_text(text, "a list") if text.startswith("[") else [text]
    except UserError as error:
        raise ValueError from error
    return found if isinstance(found, list) else [text]


def _in_words(kind: Any) -> str:
    return "a list such as [a, b]" if get_origin(kind) is list else WORDS.get(kind, str(kind))
