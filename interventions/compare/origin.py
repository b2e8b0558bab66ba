"""Where a comparison comes from: code, machine, configuration, command and time, as far as they are recorded.

Nothing here is asked of this machine, and no path is given, since a page goes to other people.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from interventions.compare.collect import Comparison, Row
from spectra.record.events import is_time, read_json_lines

RECORDED_FACTS = {
    "version": "package version",
    "commit": "commit",
    "device": "machine",
    "threads": "threads of a run",
    "python": "Python",
    "torch": "PyTorch",
    "numpy": "NumPy",
}


@dataclass
class Origin:
    """What is recorded about the runs of a comparison.

    Attributes:
        facts: (name, value) in plain words, such as code, machine and versions; several values if the runs differ.
        presets: the presets of the runs from scratch.
        configuration: field -> value, where the base runs differ from the defaults; seeds and places left out.
        seconds: of training, summed over all runs; None: not recorded.
        commands: as they were given.
    """

    facts: list[tuple[str, str]] = field(default_factory=list)
    presets: list[str] = field(default_factory=list)
    configuration: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    commands: list[str] = field(default_factory=list)


def origin_of(comparison: Comparison) -> Origin:
    """Read run.json, config.yaml and the events of every run, and the launches of the plan."""
    found = Origin()
    runs = [row.outcome.path for row in comparison.rows]
    described = [facts for path in [*runs, *comparison.parents.values()] if (facts := _read_json(path / "run.json"))]
    for name, words in RECORDED_FACTS.items():
        values = _distinct(_fact(facts, name) for facts in described if facts.get(name) is not None)
        if values:
            found.facts.append((words, ", ".join(values)))
    started = sorted(facts["started"] for facts in described if isinstance(facts.get("started"), str))
    if started:
        spans = [started[0]] if started[0] == started[-1] else [started[0], started[-1]]
        found.facts.append(("runs started", " to ".join(one[:16].replace("T", " ") for one in spans)))
    places = dict.fromkeys(path.resolve() for path in [*comparison.parents.values(), *runs])
    events = {path: read_json_lines(path / "events.jsonl") for path in places}
    presets = [one["preset"] for lines in events.values() for one in lines if one.get("preset")]
    # not PLAN/ENTRY
    presets = [name for name in map(str, presets) if "/" not in name or name.endswith((".yaml", ".yml"))]
    found.presets = _distinct(presets)
    seconds = [spent for lines in events.values() if (spent := _seconds(lines)) is not None]
    found.seconds = sum(seconds) if seconds else None
    if comparison.folder is not None:
        launches = read_json_lines(comparison.folder / "launches.jsonl")
        given = [one["command"] for one in launches if isinstance(one.get("command"), (list, str))]
        commands = (one if isinstance(one, list) else one.split() for one in given)
        found.commands = _distinct(_without_paths(map(str, one)) for one in commands)
        times = [one["time"] for one in launches if is_time(one.get("time"))]
        if times:
            found.facts.append(("plan begun, last action", f"{_day(min(times))}, {_day(max(times))}"))
    found.configuration = _configuration(comparison)
    return found


def duration(seconds: float) -> str:
    """A time in words: 42 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _fact(facts: Mapping[str, Any], name: str) -> str:
    value = str(facts[name])
    if name == "commit":
        return value[:12] + (" (with local changes)" if facts.get("dirty") else "")
    return value


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(events: list[dict[str, Any]]) -> float | None:
    """The time from the begin of each session to its last event, but for what was copied from a parent."""
    sessions: list[tuple[float, float]] = []
    for event in events:
        now = event.get("time")
        if event.get("inherited") or not is_time(now) or not now:
            continue
        if event.get("event") in ("started", "resumed"):
            sessions.append((now, now))
        elif sessions:
            sessions[-1] = sessions[-1][0], now
    return sum(last - begin for begin, last in sessions) if sessions else None


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) + " UTC"


def _without_paths(words: Iterable[str]) -> str:
    """A command whose absolute paths are cut to their last part."""
    shown = []
    for word in words:
        name, equals, value = word.partition("=")
        if equals and value.startswith("/"):
            shown.append(f"{name}={PurePosixPath(value).name}")
        else:
            shown.append(PurePosixPath(word).name if word.startswith("/") else word)
    return " ".join(shown)


HIDDEN = ("seed", "out", "data.path")
"""Fields that differ between base runs, or name places."""


def _configuration(comparison: Comparison) -> dict[str, str]:
    """Of the first unchanged run that has one, or of the first base run."""
    from biggan.config import Config, differences
    from biggan.errors import UserError
    from biggan.run.directory import RunDirectory

    def changes_nothing(row: Row) -> bool:
        return row.is_unchanged and row.seed is None

    paths = [*comparison.parents.values(), *(row.outcome.path for row in comparison.rows if changes_nothing(row))]
    for path in paths:
        try:
            config = RunDirectory(path).read_config()
        except UserError:
            continue
        changed = differences(Config(), config)
        return {name: str(pair[1]) for name, pair in changed.items() if name not in HIDDEN}
    return {}
