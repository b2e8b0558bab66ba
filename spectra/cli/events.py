"""`spectra events`: the events of a run."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path


def add_events_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = (
        "List a run's events, one per line: step, time, kind and details. Of its checkpoints and evaluations, which "
        "most runs have many of, only the number is said."
    )
    parser.add_argument("run", metavar="RUN", help="the run directory")
    parser.add_argument(
        "--all",
        action="store_true",
        help="also show checkpoints, evaluations, and events that a resume has superseded; all details",
    )


def run_events(options: argparse.Namespace) -> int:
    """Print one line per event; returns the exit code."""
    import warnings

    from spectra.record.damage import RecordDamage
    from spectra.record.events import ROUTINE, read_event_lines
    from spectra.record.segments import check_is_run, record_damage
    from spectra.report.words import event_words

    check_is_run(Path(options.run))
    events = read_event_lines(options.run)
    if not events:  # a run that was only watched has none while all goes well
        print(f"{options.run} has no events", file=sys.stderr)
    hidden = dict.fromkeys(ROUTINE, 0)
    for event in events:
        superseded = event.pop("superseded", False)
        if superseded and not options.all:
            continue
        if not options.all and event["event"] in ROUTINE:
            hidden[event["event"]] += 1
            continue
        step, kind, when = event.pop("step"), event.pop("event"), event.pop("time", None)
        clock = "" if when is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
        details = " ".join(event_words(event, whole=options.all))
        print(f"{step:>9}  {clock:<19}  {kind:<12} {'(superseded) ' if superseded else ''}{details}".rstrip())
    if any(hidden.values()):
        counts = " and ".join(f"{number} {kind}{'s' * (number > 1)}" for kind, number in hidden.items() if number)
        print(f"{counts} not shown: --all shows them", file=sys.stderr)
    for words in record_damage(options.run):
        warnings.warn(words, RecordDamage, stacklevel=1)
    return 0
