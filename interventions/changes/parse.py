"""Reading a change's arguments: `G=x2`, `1e-4,full`, `{strength: 0.1, target: 1}`."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from biggan.errors import UserError, check_known
from spectra.nearest import nearest

NETWORKS = ("G", "D", "both")


def arguments(kind: type, value: Any, name: str) -> dict[str, Any]:
    """The keyword arguments of the dataclass `kind` that `value` means.

    A mapping gives them by name. A text or number stands for the first field, a comma for the next one; `G=` or `D=`
    before it is the field `network`, and `key:value` names one. Raises `UserError` for what does not fit.
    """
    fields = [field.name for field in dataclasses.fields(kind)]
    given = dict(value) if isinstance(value, Mapping) else _from_text(str(value), fields, name)
    hints = get_type_hints(kind)
    for key in given:
        check_known(key, fields, f"argument of the change {name}:")
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in given and field.default is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"the change {name} lacks its {' and '.join(missing)}. It takes: {', '.join(fields)}.")
    return {key: _typed(hints[key], one, f"{name}: {key}") for key, one in given.items()}


def _from_text(text: str, fields: list[str], name: str) -> dict[str, Any]:
    import yaml

    if text.startswith("{"):
        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"the arguments of {name} cannot be read: {error}.") from error
        return dict(found)
    given: dict[str, Any] = {}
    head, equals, rest = text.partition("=")
    if equals and head in NETWORKS and "network" in fields:
        given["network"], text = head, rest
    free = [field for field in fields if field not in given]
    if "network" in free and free[0] != "network":
        free.remove("network")
        if text in NETWORKS:  # `moments D`: the network alone
            return {"network": text}
    for part in text.split(",") if text else []:
        key, colon, one = part.partition(":")
        if colon and key in fields:
            given[key] = one
        elif free:
            given[free[0]] = part
        else:
            raise UserError(f"'{text}' says more than the change {name} takes: {', '.join(fields)}.")
        free = [field for field in free if field not in given]
    return given


def _typed(hint: Any, value: Any, where: str) -> Any:
    """`value` as what the field's annotation asks for."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        if isinstance(value, bool):
            value = "on" if value else "off"  # YAML reads these words as true and false
        if value not in parts:
            hints = nearest(str(value), map(str, parts))
            raise UserError(f"{where} is '{value}', expected one of {', '.join(map(str, parts))}{hints}")
        return value
    if origin in (Union, types.UnionType):
        if value is None or (value in ("none", "null") and type(None) in parts):
            return None
        for part in (p for p in parts if p is not type(None)):
            try:
                return _typed(part, value, where)
            except UserError:
                if part is parts[-1] or (parts[-1] is type(None) and part is parts[-2]):
                    raise
    if origin is list:
        items = value if isinstance(value, list) else str(value).split("+")
        return [_typed(parts[0], item, where) for item in items]
    return _plain(hint, value, where)


def _plain(hint: Any, value: Any, where: str) -> Any:
    words = {float: "a number", int: "a whole number", str: "a text"}
    try:
        if hint is float and not isinstance(value, bool):
            number = float(value)
            if math.isnan(number):
                raise ValueError
            return number
        if hint is int and not isinstance(value, bool) and float(value) == int(float(value)):
            return int(float(value))
        if hint is str and not isinstance(value, (Mapping, list)):
            return str(value)
        if hint is Any:
            return value
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"{where} is '{value}', expected {words.get(hint, str(hint))}.")
