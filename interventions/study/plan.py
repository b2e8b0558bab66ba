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

from biggan.config.yaml_text import read_yaml_text
from biggan.errors import UserError, check_known
from interventions.changes import Change

CONTROL, PLAIN = "control", "plain"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
MOST_RUNS, LONGEST_NAME = 2_000, 100


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
    path, is_shipped = Path(name), False
    if path.suffix in (".yaml", ".yml") or path.is_file():  # a directory may bear the name of a shipped plan
        if not path.is_file():
            raise UserError(f"unknown plan {name}. Give a YAML file, or one of {', '.join(shipped_plans())}.")
        try:
            text, name = path.read_text(encoding="utf-8"), path.stem
        except UnicodeDecodeError as error:
            raise UserError(f"the plan {name} is not a text in UTF-8: {error}.") from error
    else:
        check_known(name, shipped_plans(), "plan")
        is_shipped = True
        text = resources.files("interventions.study.plans").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    values = read_yaml_text(text, f"the plan {name}")
    if not isinstance(values, Mapping) or not isinstance(values.get("entries"), Mapping):
        raise UserError(f"the plan {name} has no entries: expected a mapping with `entries: _NAME: changes: [...]`.")
    for key in values:
        check_known(key, ["title", "seeds", "figures", "settings", "entries"], f"key of the plan {name}:")
    seeds = values.get("seeds", 3)
    if type(seeds) is not int or not 0 <= seeds <= MOST_RUNS:
        raise UserError(
            f"`seeds` of the plan {name} is {seeds!r:.60}, expected a whole number from 0 to {MOST_RUNS:,}."
        )
    figures = _of_kind(list, values, "figures", f"the plan {name}", "a list of figures such as [20, 29]")
    settings = _of_kind(dict, values, "settings", f"the plan {name}", "fields and values")
    entries: dict[str, Entry] = {}
    for key, value in values["entries"].items():
        for entry in _entries(name, str(key), value):
            if entry.name in entries:
                raise UserError(f"the plan {name} has two entries called {entry.name}.")
            entries[entry.name] = entry
            if len(entries) * (1 + seeds) > MOST_RUNS:
                raise UserError(f"the plan {name} has more than {MOST_RUNS:,} runs for a base run. Divide it.")
    title = str(values.get("title", name))
    return Plan(name, title, tuple(entries.values()), seeds, tuple(map(str, figures)), settings, is_shipped)


def _of_kind(kind: type, values: Mapping[str, Any], key: str, where: str, wanted: str) -> Any:
    """`values[key]`, or an empty one where there is none. Raises `UserError` unless it is of this kind."""
    found = values.get(key)
    if found is not None and not isinstance(found, kind):
        raise UserError(f"`{key}` of {where} is {found!r:.60}, expected {wanted}.")
    return kind() if found is None else found


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
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is not a mapping: expected {{changes: [...], from: parent or scratch}}.")
    for key in value:
        check_known(key, ["from", "changes", "each"], f"key of {where}:")
    origin = value.get("from", "parent")
    check_known(origin, ["parent", "scratch"], f"`from` of {where}:")
    each = _of_kind(dict, value, "each", where, "names with lists of values such as {g: [1, 10]}")
    each = {str(key): _of_kind(list, each, key, f"`each` of {where}", "a list of values") for key in each}
    given = _of_kind(list, value, "changes", where, "a list of changes such as [freeze: D]")
    if not given:
        raise UserError(f"{where} has no changes. The unchanged control needs no entry: every plan has it.")
    for combination in itertools.product(*each.values()):
        chosen = dict(zip(each, combination, strict=True))
        full = _filled(name, chosen)
        if not _NAME.fullmatch(full) or full in (CONTROL, PLAIN) or "-seed-" in full or len(full) > LONGEST_NAME:
            raise UserError(
                f"'{full:.100}' cannot be an entry's name. Use letters, digits, . _ + - (at most {LONGEST_NAME}), "
                f"and no reserved name."
            )
        yield Entry(full, origin == "scratch", tuple(_change(one, chosen, where) for one in given))


def _change(given: Any, chosen: Mapping[str, Any], where: str) -> PlannedChange:
    if not isinstance(given, Mapping):
        raise UserError(f"a change of {where} is {given!r:.60}, expected a mapping such as freeze: D.")
    names = [key for key in given if key not in ("from", "until")]
    if len(names) != 1 or not isinstance(names[0], str):
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
            value = value.replace("{" + key + "}", f"{one:g}" if isinstance(one, float) else f"{one!s:.1000}")[:10_000]
    return value
