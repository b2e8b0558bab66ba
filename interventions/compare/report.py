"""Writes the report of a comparison: its tables as CSV files, and report.html."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from interventions.compare.collect import Comparison
from interventions.compare.page.document import page_of
from interventions.compare.runs_table import table
from interventions.compare.statistics import effects, seed_variation
from interventions.compare.tables import with_texts
from spectra.record.files import make_folder, replacing

if TYPE_CHECKING:
    from interventions.compare.claims.judge import Verdict


PAGE = "report.html"


def verdicts_of(comparison: Comparison) -> list[Verdict]:
    """The verdicts on the claims, of a plan; loose runs have none."""
    from interventions.compare.claims.judge import judge_claims

    return [] if comparison.folder is None else judge_claims(comparison)


def write_report(comparison: Comparison, folder: str | Path, verdicts: Sequence[Verdict] | None = None) -> list[Path]:
    """Write compare.csv, seed_variation.csv, effects.csv, of a plan claims.csv, and report.html into `folder`;
    the files written.

    `verdicts`: of `judge_claims`, shown first on the page; None: those of `verdicts_of`.
    """
    folder = Path(folder)
    frames = {
        "compare": with_texts(table(comparison), comparison),
        "seed_variation": seed_variation(comparison),
        "effects": effects(comparison),
    }
    from interventions.compare.claims.judge import verdicts_table

    verdicts = verdicts_of(comparison) if verdicts is None else verdicts
    if verdicts:
        frames["claims"] = verdicts_table(verdicts)
    texts = {folder / f"{name}.csv": frame.to_csv(index=False) for name, frame in frames.items()}
    texts[folder / PAGE] = page_of(comparison, verdicts)
    make_folder(folder)
    with ExitStack() as all_or_none:  # they get their names when all of them are written
        for path, text in texts.items():
            all_or_none.enter_context(replacing(path)).write_text(text, encoding="utf-8")
    return list(texts)
