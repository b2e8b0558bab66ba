"""A plan: many branches and runs from scratch of one or several base runs, each with its changes, as one file.

    title: Freezing
    seeds: 3                       # continuations of every parent under other seeds
    entries:
      freeze-G: {changes: [freeze: G]}
      lr-G-later: {changes: [{lr: G=x2, from: 0.5}]}
      r1: {from: scratch, changes: [r1: 10]}
      lr-{g}: {each: {g: [1e-5, 1e-4]}, changes: [lr: "G={g}"]}

`from` and `until` are shares of the entry's length; an argument such as `50%` is that share of it, in steps. The
unchanged
control and the continuations under other seeds need no entry: every plan has them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from biggan.errors import UserError, check_known
from interventions.changes import Change

CONTROL, PLAIN = "control", "plain"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class PlannedChange:
    """A change as a plan writes it: its name, its arguments, and the shares of the entry's length where it holds."""

    name: str
    arguments: Any
    since: float = 0.0
    until: float | None = None


@dataclass(frozen=True)
class Entry:
    """One line of a plan: changes that are made together."""

    name: str
    scratch: bool
    changes: tuple[PlannedChange, ...]
    seed: int | None = None
    """The number of a further seed; None: the base run's own noise."""


@dataclass(frozen=True)
class Plan:
    """A plan's file, read and checked."""

    name: str
    title: str
    entries: tuple[Entry, ...]
    seeds: int = 3
    figures: tuple[str, ...] = ()
    """Figures of the paper to draw of each run, as `spectra plot` names them."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields that do not decide the numbers, for every entry."""
    is_shipped: bool = False
    """Whether it comes with the package: made for many base runs, so that not every entry suits each of them."""


def shipped_plans() -> list[str]:
    """The plans that come with the package."""
    files = resources.files("interventions.study.plans").iterdir()
    return sorted(path.name.removesuffix(".yaml") for path in files if path.name.endswith(".yaml"))


def read_plan(name: str) -> Plan:
    """A shipped plan by name, or a YAML file. Raises `UserError` for what cannot be understood, naming the entry."""
    import yaml

    path, is_shipped = Path(name), False
    if path.suffix in (".yaml", ".yml") or path.is_file():  # a directory may bear the name of a shipped plan
        if not path.is_file():
            raise UserError(f"unknown plan {name}. Give a YAML file, or one of {', '.join(shipped_plans())}.")
        text, name = path.read_text(encoding="utf-8"), path.stem
    else:
        check_known(name, shipped_plans(), "plan")
        is_shipped = True
        text = resources.files("interventions.study.plans").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"the plan {name} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, Mapping) or not isinstance(values.get("entries"), Mapping):
        raise UserError(f"the plan {name} has no entries: expected a mapping with `entries: _NAME: changes: [...]`.")
    for key in values:
        check_known(key, ["title", "seeds", "figures", "settings", "entries"], f"key of the plan {name}:")
    entries = [entry for key, value in values["entries"].items() for entry in _entries(name, str(key), value)]
    names = [entry.name for entry in entries]
    if twice := next((one for one in names if names.count(one) > 1), None):
        raise UserError(f"the plan {name} has two entries called {twice}.")
    figures = tuple(str(figure) for figure in values.get("figures", ()))
    settings = dict(values.get("settings", {}))
    seeds = int(values.get("seeds", 3))
    return Plan(name, values.get("title", name), tuple(entries), seeds, figures, settings, is_shipped)


def plan_of_changes(changes: Sequence[tuple[Change, float, float | None]], seeds: int) -> Plan:
    """A plan of one entry and its `seeds` further continuations; steps here are further ones, not shares."""
    label = "+".join(change.describe() for change, _, _ in changes)
    given = tuple(
        PlannedChange(change.name, change.spec()[change.name], since, until) for change, since, until in changes
    )
    name = re.sub(r"[^A-Za-z0-9.+-]+", "-", label.replace("/", "div")).strip("-")[:60]
    numbers = (None, *range(1, seeds + 1))
    return Plan(name, label, tuple(Entry(name, False, given, number) for number in numbers), seeds)


def _entries(plan: str, name: str, value: Any) -> Iterator[Entry]:
    """The entry, or one for each combination of the values under `each`."""
    where = f"entry {name} of the plan {plan}"
    value = value or {}
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is not a mapping: expected {{changes: [...], from: parent or scratch}}.")
    for key in value:
        check_known(key, ["from", "changes", "each"], f"key of {where}:")
    origin = value.get("from", "parent")
    check_known(origin, ["parent", "scratch"], f"`from` of {where}:")
    each = {key: list(values) for key, values in (value.get("each") or {}).items()}
    for combination in itertools.product(*each.values()):
        chosen = dict(zip(each, combination, strict=True))
        full = _filled(name, chosen)
        if not _NAME.fullmatch(full) or full in (CONTROL, PLAIN) or "-seed-" in full:
            raise UserError(f"'{full}' cannot be an entry's name. Use letters, digits, . _ + -, and no reserved name.")
        changes = tuple(_change(one, chosen, where) for one in value.get("changes") or ())
        if not changes:
            raise UserError(f"{where} has no changes. The unchanged control needs no entry: every plan has it.")
        yield Entry(full, origin == "scratch", changes)


def _change(given: Any, chosen: Mapping[str, Any], where: str) -> PlannedChange:
    if not isinstance(given, Mapping):
        raise UserError(f"a change of {where} is {given!r}, expected a mapping such as freeze: D.")
    names = [key for key in given if key not in ("from", "until")]
    if len(names) != 1:
        raise UserError(f"a change of {where} names {', '.join(map(str, names)) or 'nothing'}, expected one change.")
    since, until = given.get("from", 0.0), given.get("until")
    for share in (since, until):
        if share is not None and not (isinstance(share, (int, float)) and 0 <= share <= 1):
            raise UserError(f"`from` and `until` of {where} are shares of its length, 0 to 1; one is {share!r}.")
    return PlannedChange(names[0], _filled(given[names[0]], chosen), float(since), until)


def _filled(value: Any, chosen: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(one, chosen) for key, one in value.items()}
    if isinstance(value, str):
        for key, one in chosen.items():
            value = value.replace("{" + key + "}", f"{one:g}" if isinstance(one, float) else str(one))
    return value
