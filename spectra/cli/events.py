"""`spectra events`: the events of a run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def add_events_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = "List a run's events, one per line: step, time, kind and details."
    parser.add_argument("run", metavar="RUN", help="the run directory")
    parser.add_argument(
        "--all", action="store_true", help="also show events that a resume has superseded, and all details"
    )


def run_events(options: argparse.Namespace) -> int:
    """Print one line per event; returns the exit code."""
    import warnings

    from spectra.record.damage import RecordDamage
    from spectra.record.events import read_event_lines
    from spectra.record.segments import record_damage

    if not Path(options.run, "events.jsonl").is_file():
        raise FileNotFoundError(f"{options.run} has no events.jsonl. Give a run directory")
    for event in read_event_lines(options.run):
        superseded = event.pop("superseded", False)
        if superseded and not options.all:
            continue
        step, kind, when = event.pop("step"), event.pop("event"), event.pop("time", None)
        clock = "" if when is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
        details = " ".join(_in_words(event, whole=options.all))
        print(f"{step:>9}  {clock:<19}  {kind:<12} {'(superseded) ' if superseded else ''}{details}".rstrip())
    for words in record_damage(options.run):
        warnings.warn(words, RecordDamage, stacklevel=1)
    return 0


def _in_words(fields: Mapping[str, Any], *, whole: bool) -> Iterator[str]:
    """name=value, numbers to four digits; unless `whole`, digests are cut short and score settings omitted."""
    for name, value in fields.items():
        if value in ([], {}, None) or (name == "settings" and not whole):
            continue
        if name == "scores" and isinstance(value, dict):
            yield from _in_words(value, whole=whole)
        elif isinstance(value, float):
            yield f"{name}={value:.4g}"
        else:
            yield f"{name}={value[:12] if name == 'digest' and not whole else value}"
