"""A run's events: `events.jsonl`, one event per line. A resume marks the events after its step as superseded."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.record.damage import RecordDamage
from spectra.record.files import append_line, write_bytes

if TYPE_CHECKING:
    import pandas as pd

REQUIRED: dict[str, dict[str, type]] = {"evaluation": {"weights": str, "scores": dict}}
"""Fields that an event of a kind must have."""
BEGINNINGS = {"started", "resumed"}
ENDINGS = {"finished", "interrupted", "paused", "stopped"}
"""Events that a session of a run begins with, and that it ends with once its record is closed."""
ROUTINE = ("checkpoint", "evaluation")
"""Kinds of events that are listed apart, or only counted: there are many, and they tell of no trouble."""
LAST_STEP = 2**53
LAST_TIME = 2.0**37  # some thousand years, which calendars can say


def read_event_lines(run: str | Path) -> list[dict[str, Any]]:
    """The events of events.jsonl in order.

    A line that is no event (torn by a kill, altered, with a field of the wrong type) is left out, with a
    `RecordDamage` warning; an event that stands behind a torn one in its line is read. A last line without an end is
    left out in silence: its writer may be at work.
    """
    return [event for _, events in _read(Path(run) / "events.jsonl") for event in events]


def ended_at(run: str | Path) -> int | None:
    """The step at which the run's last session ended by itself; None where it did not, or still goes on."""
    path = Path(run) / "events.jsonl"
    for line in reversed(path.read_bytes().split(b"\n") if path.is_file() else []):
        for event in filter(is_event, _objects(line)):
            if event["event"] in BEGINNINGS | ENDINGS:
                return int(event["step"]) if event["event"] in ENDINGS else None
    return None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one a line; other lines are left out, as by `read_event_lines`."""
    return [value for _, values in _read(path, is_sound=lambda value: True) for value in values]


def _read(path: Path, is_sound: Any = None) -> Iterator[tuple[bytes, list[dict[str, Any]]]]:
    """Each line as it stands, with the objects in it."""
    is_sound = is_sound or is_event
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    left_out = []
    for number, line in enumerate(lines, 1):
        found = [value for value in _objects(line) if is_sound(value)]
        yield line, found
        if line.strip() and not found and number < len(lines):
            left_out.append(number)
    if left_out:
        which = f"line {left_out[0]} is" if len(left_out) == 1 else f"lines {', '.join(map(str, left_out[:9]))} are"
        which = which if len(left_out) <= 9 else f"{len(left_out)} lines from line {left_out[0]} on are"
        warnings.warn(f"{path}: {which} torn or altered, and left out", RecordDamage, stacklevel=4)


def _objects(line: bytes) -> list[dict[str, Any]]:
    """The object of a line; where the line is torn, one that was appended to its piece."""
    for begin in (0, line.rfind(b'{"event"')):
        try:
            value = json.loads(line[begin:] if begin >= 0 else b"")
        except (ValueError, RecursionError):  # invalid UTF-8 is a ValueError too
            continue
        return [value] if isinstance(value, dict) else []
    return []


def is_event(value: Mapping[str, Any]) -> bool:
    """Whether an object is an event: its kind, its step, and what every reader takes as a time, a step or a mapping."""
    step, time = value.get("step"), value.get("time")
    steps = [value[name] for name in ("onset", "well_until") if value.get(name) is not None]
    mappings = [value[name] for name in ("scores", "settings", "details", "other_versions") if name in value]
    return (
        isinstance(value.get("event"), str)
        and all(type(one) is int and 0 <= one < LAST_STEP for one in (step, *steps))
        and (time is None or is_time(time))
        and isinstance(value.get("superseded", False), bool)
        and all(one is None or isinstance(one, dict) for one in mappings)
        and all(map(_is_score, (value.get("scores") or {}).values()))
        and all(isinstance(value.get(name), kind) for name, kind in REQUIRED.get(value["event"], {}).items())
    )


def is_time(value: Any) -> bool:
    """Whether this is a time that a calendar can say, in seconds since 1970."""
    return type(value) in (int, float) and 0 <= value < LAST_TIME


def _is_score(value: Any) -> bool:
    """Whether this is a number, or nothing; NaN and Inf may stand there as texts."""
    if isinstance(value, str):
        return value in ("nan", "inf", "-inf")
    return value is None or type(value) is float or (type(value) is int and abs(value) < LAST_STEP)


def read_events(run: str | Path) -> pd.DataFrame:
    """events.jsonl as a frame: event, step, time (seconds since 1970), superseded (by a resume), details (a dict).

    Lines that are no events are left out with a warning, see `read_event_lines`.
    """
    import pandas as pd

    rows = []
    for event in read_event_lines(run):
        known = {name: event.pop(name, None) for name in ("event", "step", "time")}
        rows.append({**known, "superseded": bool(event.pop("superseded", False)), "details": event})
    return pd.DataFrame(rows, columns=["event", "step", "time", "superseded", "details"])


def append_event(run: str | Path, event: Mapping[str, Any]) -> None:
    """Add one line to events.jsonl; it is completely on disk when this returns."""
    append_line(Path(run) / "events.jsonl", json.dumps(event))


def supersede_events(run: str | Path, step: int) -> None:
    """Mark the events after `step` as superseded, before a session resumes from there. No line is deleted."""
    path, lines, later = Path(run) / "events.jsonl", [], 0
    for line, events in _read(path):
        marked = [event for event in events if event["step"] > step and not event.get("superseded")]
        later += len(marked)
        for event in marked:
            event["superseded"] = True
        lines.append(b"\n".join(json.dumps(event).encode() for event in events) if marked else line)
    if later:
        write_bytes(path, b"\n".join(lines).rstrip(b"\n") + b"\n")
