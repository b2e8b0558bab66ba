"""A comparison on the terminal: the claims and where the page is, or all tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from interventions.compare.brief import brief_sections
from interventions.compare.collect import Comparison
from interventions.compare.tables import NO_SCORES, TEXTS, sections
from interventions.compare.verdict_words import CLAIM_COLUMNS, SILENT, cells, summary

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from interventions.compare.claims.judge import Verdict

MOST_ROWS = 40
"""Rows of a table that are printed without `everything`."""
PIPE_WIDTH = 240
"""Columns where the output is not a terminal, so that nothing is cut off."""


def print_report(
    comparison: Comparison, verdicts: Sequence[Verdict] = (), *, page: Path | None = None, everything: bool = False
) -> None:
    """A comparison on the terminal: the claims that these runs say something about, or else the tables.

    Args:
        comparison: what is compared.
        verdicts: of `judge_claims`.
        page: where report.html is.
        everything: also print all tables, whole; otherwise at most `MOST_ROWS` rows of each, and the measures that
            matter most.
    """
    console = report_console()
    if not comparison.scored:
        console.print(NO_SCORES)
    told = [one for one in verdicts if one.n and one.verdict not in SILENT]
    if told:
        console.print(claims_table(told))
        others = len(verdicts) - len(told)
        console.print(summary(verdicts) + (f" {others} that these runs do not touch are left out." if others else ""))
    if everything or not told:
        _print_tables(console, sections(comparison) if everything else brief_sections(comparison), everything)
        if not everything:
            console.print(f"--all prints every measure and row; {_csv_words(page)}", markup=False, highlight=False)
    for line in comparison.notes:
        console.print(f"note: {line}", markup=False)
    if page is not None:
        console.print(f"page: {page}", markup=False, soft_wrap=True)


def report_console() -> Console:
    """The terminal; or, for a file or a pipe, a console so wide that nothing is cut off."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)


def claims_table(verdicts: Sequence[Verdict]) -> Table:
    """The claims as a table: claim, verdict, effect, p after Holm's correction, base runs."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(title="Claims", title_justify="left")
    for name in CLAIM_COLUMNS:
        shown.add_column(name, justify="right" if name in ("p (Holm)", "n") else "left", overflow="fold")
    for one in verdicts:
        shown.add_row(*map(Text, cells(one)))
    return shown


def _csv_words(page: Path | None) -> str:
    """Where all numbers are as CSV files, or how to get them."""
    files = "compare.csv (a row for each run), effects.csv and seed_variation.csv"
    return f"--out DIR writes all as {files}." if page is None else f"all are in {page.parent} as {files}."


def _print_tables(console: Console, parts: Iterable[tuple[str, str, pd.DataFrame | None]], everything: bool) -> None:
    for title, words, frame in parts:
        if frame is not None and len(frame):
            console.print(_rich_table(title, frame if everything else frame.head(MOST_ROWS)))
            if not everything and len(frame) > MOST_ROWS:
                console.print(f"{len(frame) - MOST_ROWS} more rows; --all prints them.")
        elif frame is not None:
            console.print(f"{title}: no results")
        if words:
            console.print(words)


def _rich_table(title: str, frame: pd.DataFrame) -> Table:
    from rich.table import Table

    shown = Table(title=title, title_justify="left")
    for name in frame:
        shown.add_column(str(name), justify="left" if name in TEXTS else "right", overflow="fold")
    for row in frame.itertuples(index=False):
        shown.add_row(*map(str, row))
    return shown
