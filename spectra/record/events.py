"""A run's events: `events.jsonl`, one event per line. A resume marks the events after its step as superseded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.record.files import append_line, write_text

if TYPE_CHECKING:
    import pandas as pd


def read_event_lines(run: str | Path) -> list[dict[str, Any]]:
    """The lines of events.jsonl that name an event and its step, in order; lines torn by a kill are skipped."""
    path, events = Path(run) / "events.jsonl", []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(event, dict) and {"event", "step"} <= set(event):
            events.append(event)
    return events


def read_events(run: str | Path) -> pd.DataFrame:
    """events.jsonl as a frame: event, step, time (seconds since 1970), superseded (by a resume), details (a dict).

    Lines that a kill tore are skipped.
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
    """Mark the events after `step` as superseded, before a session resumes from there. No event is deleted."""
    events = read_event_lines(run)
    later = [event for event in events if event["step"] > step and not event.get("superseded")]
    if not later:
        return
    for event in later:
        event["superseded"] = True
    write_text(Path(run) / "events.jsonl", "".join(json.dumps(event) + "\n" for event in events))
