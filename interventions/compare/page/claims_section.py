"""The table of claims on the page."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from html import escape
from typing import Any

from interventions.compare.verdict_words import SYMBOLS, effect_words, p_words, summary

READING = (
    "Each claim has one measure, chosen before the study ran. n: base runs. Effect: over base runs, in the measure's "
    "own unit, with its 95 % interval; a factor stands for a ratio to the unchanged runs. p: exact and two-sided; "
    "Holm: corrected over the tests of all claims; smallest p: what this design could reach at best. A claim that is "
    "decided by its interval alone has no p. Supported, contradicted: decided at the level 0.05. Undecided: more "
    "base runs are needed. Premise not met: what the claim is about did not happen here."
)
HEADS = ("claim", "premise", "n", "effect (95 % interval)", "p", "smallest p", "verdict", "figure")


def claims_section(verdicts: Sequence[Any], figures: Container[str] = ()) -> str:
    """The claims' table as HTML: one row per claim, its operational definition under its verdict.

    Args:
        verdicts: of `judge_claims`.
        figures: the titles of the figures on the page; a claim that names another one has no link.
    """
    if not verdicts:
        return "<p>No claim was judged.</p>"
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in HEADS)
    rows = "\n".join(_row(one, figures) for one in verdicts)
    return (
        f"<p class=summary>{escape(summary(verdicts))}</p>\n"
        f"<table class=claims><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>\n"
        f"<p class=small>{escape(READING)}</p>"
    )


def _figure(one: Any, figures: Container[str]) -> str | None:
    """The figure that a claim names, or else the one of its entries, or of the base runs; None if it is not there."""
    wanted = (one.figure, "Effects" if one.entries else "Base runs")
    return next((title for title in wanted if title and title in figures), None)


def anchor(title: str) -> str:
    """The id of a figure on the page."""
    return "figure-" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _row(one: Any, figures: Container[str]) -> str:
    kind = re.sub(r"[^a-z]+", "-", one.verdict)
    symbol = f"<span class=symbol aria-hidden=true>{SYMBOLS.get(one.verdict, '')}</span> "
    met = {True: "met", False: "not met", None: "none needed"}[one.premise_met]
    premise = met + (f"<div class=small>{escape(one.premise)}</div>" if one.premise else "")
    p = f"{p_words(one.p)}<div class=small>Holm {p_words(one.p_holm)}</div>"
    verdict = f"<b>{symbol}{escape(one.verdict)}</b>"
    if one.reason:
        verdict += f"<div>{escape(one.reason)}</div>"
    if one.definition:
        verdict += f"<div class=small>Means here: {escape(one.definition)}</div>"
    if scale := getattr(one, "scale", ""):
        verdict += f"<div class=small>At this scale: {escape(scale)}</div>"
    link = f"<a href='#{anchor(figure)}'>{escape(figure)}</a>" if (figure := _figure(one, figures)) else "-"
    name = f"<b>{escape(one.claim)}</b> {escape(one.text)} <span class=small>({escape(one.place)})</span>"
    cells = (name, premise, str(one.n), escape(effect_words(one)), p, p_words(one.least_p), verdict, link)
    body = "".join(
        f"<td data-label='{escape(head)}' class=c{number}>{cell}</td>"
        for number, (head, cell) in enumerate(zip(HEADS, cells, strict=True))
    )
    return f"<tr class='{kind}' id='claim-{escape(one.claim, quote=True)}'>{body}</tr>"
