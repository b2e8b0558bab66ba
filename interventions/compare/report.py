"""Writes the report of a comparison: its tables as CSV files, and report.html."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interventions.compare.collect import Comparison, table
from interventions.compare.page.document import page_of
from interventions.compare.statistics import effects, seed_variation
from interventions.compare.tables import with_texts
from spectra.record.files import write_text

PAGE = "report.html"


def write_report(comparison: Comparison, folder: str | Path, verdicts: Sequence[Any] = ()) -> list[Path]:
    """Write compare.csv, seed_variation.csv, effects.csv and report.html into `folder`; the files written.

    `verdicts`: of `judge_claims`, shown first on the page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    frames = {
        "compare": with_texts(table(comparison), comparison),
        "seed_variation": seed_variation(comparison),
        "effects": effects(comparison),
    }
    written = []
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
        written.append(folder / f"{name}.csv")
    write_text(folder / PAGE, page_of(comparison, verdicts))
    return [*written, folder / PAGE]
