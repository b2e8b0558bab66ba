"""The output of `spectra detect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spectra.detect.online import detect_run
from spectra.detect.registry import find_detectors
from spectra.record.events import read_event_lines

HEADINGS = ("onset", "found at", "lead", "what", "height", "decay", "where and how")


def finding_rows(run: str | Path, losses: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every finding in a run as plain data, with its `lead`: steps from its step to the onset of the run's outcome
    (see `Detector.is_outcome`), or None. `losses` is that of `detect_run`.

    Raises:
        ValueError: one of `losses` was not recorded.
        FileNotFoundError: `run` is not a run directory.
    """
    found = detect_run(run, losses)
    events = read_event_lines(run)
    outcomes = [detector for detector in find_detectors() if detector.is_outcome]
    end = next((finding for detector in outcomes if (finding := detector.outcome(events))), None)
    own = {kind for detector in outcomes for kind in detector.kinds}
    return [{**asdict(one), "lead": None if end is None or one.kind in own else end.onset - one.step} for one in found]


def print_findings(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of `finding_rows`."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    detectors = find_detectors()
    if not rows:
        print(f"nothing was found. Searched for: {', '.join(detector.what for detector in detectors)}.")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in ("what", "where and how") else "right")
    worst = {detector.kinds[0] for detector in detectors if detector.is_outcome}
    for row in rows:
        table.add_row(*_cells(row), style="bold red" if row["kind"] in worst else "")
    console = Console()
    if not console.is_terminal:
        console.width = 160  # a file or a pipe has no width
    console.print(table)


def _cells(row: Mapping[str, Any]) -> list[str]:
    details = row["details"]
    lead = "" if row["lead"] is None else f"{row['lead']:+,}"
    height = f"{details['height']:.3g}" if "height" in details else ""
    return [f"{row['onset']:,}", f"{row['step']:,}", lead, row["kind"], height, _decay(details), _words(details)]


def _decay(details: Mapping[str, Any]) -> str:
    """The longest among a spike's layers; a dash where one of them has not decayed."""
    if "height" not in details:
        return ""
    decays = [layer["decay"] for layer in details["layers"].values()]
    return "-" if None in decays else f"{max(decays):,}"


def _words(details: Mapping[str, Any]) -> str:
    if "layers" in details:
        names = list(details["layers"])
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in details.items()}
    return " ".join(f"{name}={', '.join(v) if isinstance(v, list) else v}" for name, v in shown.items())
