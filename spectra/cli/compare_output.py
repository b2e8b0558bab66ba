"""How a comparison of two checkpoints is printed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from spectra.cli.scan_output import print_rows, printable, say_reasons

if TYPE_CHECKING:
    from spectra.networks.compare import LayerChange

_NUMBERS = ("sigma_ratio", "angle_left", "angle_right", "frobenius_change", "relative_change")
_HEADINGS = ["layer", "kind", "shape", "sigma_0 A", "sigma_0 B", "B/A", "angle left", "right", "|B-A|", "|B-A|/|A|"]


def print_changes(changes: list[LayerChange], k: int, tol: float) -> None:
    """One row per weight, and notes on what was not converged or not compared."""
    print_rows(_HEADINGS, [_cells(change) for change in changes])
    notes = []
    if any(change.sigma_before and not change.converged for change in changes):
        notes.append(f"* not converged to {tol:g}: a lower bound.")
    if any(change.reason is None and change.angle_left != change.angle_left for change in changes):
        notes.append(f"? the leading {k} singular vectors are not determined: the next value is too close.")
    for note in notes + say_reasons([(change.name, change.reason) for change in changes], "compared"):
        print(note)


def _cells(change: LayerChange) -> list[str]:
    star = "" if change.converged or change.reason else "*"
    sigma = [f"{values[0]:.4g}{star}" if values else "" for values in (change.sigma_before, change.sigma_after)]
    numbers = [_rounded(change, name) for name in _NUMBERS]
    return [printable(change.name), change.kind, f"{change.shape[0]} x {change.shape[1]}", *sigma, *numbers]


def _rounded(change: LayerChange, name: str) -> str:
    value = getattr(change, name)
    if value != value:
        return "?" if name.startswith("angle") and change.reason is None else ""
    return f"{value:.4g}"


def print_changes_csv(changes: list[LayerChange], k: int) -> None:
    """A header, and one line per weight."""
    import csv

    writer = csv.writer(sys.stdout)
    fields = [*_NUMBERS, "frobenius_before", "frobenius_after", "converged", "reason"]
    sides = [f"sigma_{side}_{i}" for side in ("before", "after") for i in range(k)]
    writer.writerow(["name", "kind", "rows", "columns", *sides, *fields])
    for change in changes:
        values = [
            number
            for side in (change.sigma_before, change.sigma_after)
            for number in (*side[:k], *[""] * (k - len(side)))
        ]
        writer.writerow(
            [change.name, change.kind, *change.shape, *values, *(getattr(change, field) for field in fields)]
        )
