"""Verdicts in words: their symbols, effects in the measure's own unit, p values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interventions.compare.claims.judge import Verdict


SYMBOLS = {
    "supported": "✓",
    "contradicted": "✗",
    "undecided": "?",
    "premise not met": "○",
    "not run": "-",
    "not testable here": "⊘",
}
"""Beside each verdict, so that nobody needs its colour."""
SILENT = ("not run", "not testable here")
"""Verdicts that need no run."""


TIMES = "\N{MULTIPLICATION SIGN}"


def number_words(value: float) -> str:
    """Three digits, with thousands separated; "∞" for Inf, "-" for NaN."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def effect_words(verdict: Verdict) -> str:
    """The effect with its 95 % interval in the measure's own unit; "-" if it is not known."""
    if math.isnan(verdict.effect):
        return "-"
    show = _SHOW.get(verdict.unit, number_words)
    words = show(verdict.effect) + {"steps": " steps"}.get(verdict.unit, "")
    if math.isnan(verdict.low) or math.isnan(verdict.high):
        return words
    return f"{words} ({show(verdict.low)} to {show(verdict.high)})"


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number_words(value)


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if math.isfinite(value) else number_words(value)


_SHOW = {
    "ratio": lambda value: f"{TIMES}{number_words(value)}",
    "difference": _signed,
    "steps": _signed,
    "share": _percent,
    "correlation": _signed,
}


def p_words(p: float) -> str:
    """A p value in two digits; "-" if it is not known."""
    if math.isnan(p):
        return "-"
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many claims got which verdict."""
    counts = Counter(one.verdict for one in verdicts)
    known = [verdict for verdict in SYMBOLS if counts[verdict]] + [v for v in counts if v not in SYMBOLS]
    words = ", ".join(f"{counts[verdict]} {verdict}" for verdict in known)
    return f"{len(verdicts)} claims: {words}."


CLAIM_COLUMNS = ("claim", "verdict", "effect (95 % interval)", "p (Holm)", "n")
"""Columns of the claims' table."""


def cells(verdict: Verdict) -> tuple[str, ...]:
    """A verdict's row of that table."""
    words = f"{SYMBOLS.get(verdict.verdict, '')} {verdict.verdict}".strip()
    words += f" ({verdict.reason})" if verdict.reason else ""
    return f"{verdict.claim} {verdict.text}", words, effect_words(verdict), p_words(verdict.p_holm), str(verdict.n)


def markdown_table(verdicts: Sequence[Verdict]) -> str:
    """The claims' table in Markdown, for an appendix."""

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in row) + " |"

    return "\n".join(map(line, [CLAIM_COLUMNS, ("---",) * len(CLAIM_COLUMNS), *map(cells, verdicts)]))
