"""The table of claims on the page."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Sequence
from html import escape
from typing import TYPE_CHECKING

from interventions.compare.verdict_words import SYMBOLS, effect_words, p_words, summary
from spectra.draw.page import anchor, html_table

if TYPE_CHECKING:
    from interventions.compare.claims.judge import Verdict


READING = (
    "Each claim has one measure. n: base runs. Effect: over base runs, in the measure's "
    "own unit, with its 95 % interval; a factor stands for a ratio to the unchanged runs. p: exact and two-sided; "
    "Holm: corrected over the tests of all claims; smallest p: what this design could reach at best, after Holm. A "
    "claim that is decided by its interval alone has no p. Supported, contradicted: decided at the level 0.05. "
    "Undecided: more base runs are needed. Premise not met: what the claim is about did not happen here."
)
CLAIM_HEADS = ("claim", "premise", "n", "effect (95 % interval)", "p", "smallest p (Holm)", "verdict", "figure")


def claims_section(verdicts: Sequence[Verdict], figures: Container[str] = ()) -> str:
    """The claims' table as HTML: one row per claim, its operational definition under its verdict. Claims that no run
    tests are in a table of their own, folded.

    Args:
        verdicts: of `judge_claims`.
        figures: the titles of the figures on the page; a claim that names another one has no link.
    """
    if not verdicts:
        return "<p>No claim was judged.</p>"
    tested = [one for one in verdicts if one.n]
    others = [one for one in verdicts if not one.n]
    parts = [f"<p class=summary>{escape(summary(verdicts))}</p>"]
    if tested:
        parts.append(html_table("cards claims", CLAIM_HEADS, [_row(one, figures) for one in tested]))
        parts.append(f"<p class=small>{escape(READING)}</p>")
    if others:
        words = f"{len(others)} claims that no run here tests, and why"
        body = html_table("cards claims untested", ("claim", "premise", "verdict"), [_short_row(one) for one in others])
        parts.append(f"<details><summary>{words}</summary>\n{body}</details>")
    return "\n".join(parts)


def _figure(one: Verdict, figures: Container[str]) -> str | None:
    """The figure that a claim names, or else the one of its entries, or of the base runs; None if it is not there."""
    wanted = (one.figure, "Effects" if one.entries else "Base runs")
    return next((title for title in wanted if title and title in figures), None)


def _row(one: Verdict, figures: Container[str]) -> str:
    p = p_words(one.p)
    if not math.isnan(one.p_holm):
        p += f"<div class=small>Holm {p_words(one.p_holm)}</div>"
    figure = _figure(one, figures)
    link = f"<a href='#{anchor(figure)}'>{escape(figure)}</a>" if figure else "-"
    cells = [str(one.n), escape(effect_words(one)), p, p_words(one.least_p), _verdict(one), link]
    return _cells(one, CLAIM_HEADS, [_claim(one), _premise(one), *cells])


def _short_row(one: Verdict) -> str:
    return _cells(one, ("claim", "premise", "verdict"), [_claim(one), _premise(one), _verdict(one)])


def _cells(one: Verdict, heads: Sequence[str], cells: Sequence[str]) -> str:
    kind = re.sub(r"[^a-z]+", "-", one.verdict)
    labels = [head.split(" (")[0] for head in heads]  # a narrow page shows them beside the cells
    named = zip(heads, labels, cells, strict=True)
    body = "".join(f"<td data-label='{escape(label)}'{_kind(head)}>{cell}</td>" for head, label, cell in named)
    return f"<tr class='{kind}' id='claim-{escape(one.claim)}'>{body}</tr>"


def _kind(head: str) -> str:
    return {"claim": " class=whole", "verdict": " class=verdict"}.get(head, "")


def _claim(one: Verdict) -> str:
    return f"<b>{escape(one.claim)}</b> {escape(one.text)} <span class=small>({escape(str(one.place))})</span>"


def _premise(one: Verdict) -> str:
    met = {True: "met", False: "not met", None: "none needed"}[one.premise_met]
    return met + (f"<div class=small>{escape(one.premise)}</div>" if one.premise else "")


def _verdict(one: Verdict) -> str:
    """The verdict by symbol and word, its reason, and what the claim's words mean here."""
    symbol = f"<span class=symbol aria-hidden=true>{SYMBOLS.get(one.verdict, '')}</span>"
    parts = [f"<b>{symbol} {escape(one.verdict)}</b>"]
    if one.reason:
        parts.append(f"<div>{escape(one.reason)}</div>")
    for words, text in (("Means here", one.definition), ("At this scale", one.scale)):
        if text:
            parts.append(f"<div class=small>{words}: {escape(text)}</div>")
    return "".join(parts)
