"""Verdicts in words: numbers with their unit, and the table for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from interventions.compare.claims.judge import Verdict

MARKS = {
    "supported": "+",
    "contradicted": "-",
    "undecided": "?",
    "premise not met": "o",
    "not run": ".",
    "not to be had here": "o",
}
"""A sign for each verdict, so that none is told by its colour alone."""
STYLES = {"supported": "bold", "contradicted": "bold reverse", "undecided": ""}


def effect_words(verdict: Verdict) -> str:
    """The effect in its own unit with its 95 % interval; "-" if it is not known."""
    if math.isnan(verdict.effect):
        return "-"
    mean = _number(verdict.effect, verdict.unit)
    if math.isnan(verdict.low):
        return mean
    return f"{mean} ({_number(verdict.low, verdict.unit)} to {_number(verdict.high, verdict.unit)})"


def p_words(value: float) -> str:
    """A p value; "-" if there is none."""
    if math.isnan(value):
        return "-"
    return f"{value:.1e}" if value < 0.001 else f"{value:.2g}"


def summary_line(verdicts: Sequence[Verdict]) -> str:
    """How many claims have which verdict."""
    counts = {name: sum(one.verdict == name for one in verdicts) for name in MARKS}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def claims_table(verdicts: Sequence[Verdict]) -> Any:
    """A rich table of the claims: claim, verdict, effect, p, and what happened."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"Claims of the paper: {summary_line(verdicts)}", title_justify="left", show_lines=False)
    table.add_column("claim", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("verdict", min_width=12)
    table.add_column("what the paper says", ratio=3)
    table.add_column("bases", justify="right")
    table.add_column("effect (95 % interval)", ratio=2)
    table.add_column("p (Holm)", justify="right", no_wrap=True)
    table.add_column("why", ratio=3)
    for one in verdicts:
        p = p_words(one.p_holm)
        cells = (one.verdict, one.text, str(one.n or "-"), effect_words(one), p, one.reason)
        table.add_row(one.claim, MARKS[one.verdict], *map(escape, cells), style=STYLES.get(one.verdict, "dim"))
    return table


def _number(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "inf" if value > 0 else "-inf"
    if unit == "ratio":
        return f"x{value:.3g}"
    return f"{value:+.0f} steps" if unit == "steps" else f"{value:.0%}" if unit == "share" else f"{value:+.3g}"
