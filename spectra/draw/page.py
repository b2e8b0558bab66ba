"""What every HTML page is made of: one column with sections, figures and tables, a look for screens and for print.

A page needs no file and no address outside of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

PAGE_STYLE = """
:root { --ink: #1d2126; --dim: #5a6270; --line: #d5dae1; --soft: #f4f6f8; --blue: #0072b2; --orange: #b34700;
  --green: #00694f }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink); background: #fff;
  margin: 0 auto; max-width: 1240px; padding: 1.5rem 1.5rem 4rem; overflow-wrap: break-word }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .5rem 0 .6rem }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .6rem; padding-top: .5rem; border-top: 2px solid var(--ink) }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem }
p { max-width: 75ch; margin: .5rem 0 } a { color: var(--blue) }
nav { font-size: .9rem; margin: .8rem 0 } nav a { margin-right: 1.1rem; white-space: nowrap }
.small, figcaption { font-size: .82rem; line-height: 1.4; color: var(--dim) }
.summary { font-size: 1.05rem; font-weight: 600; max-width: none }
.warn { background: #fff4d6; border-left: 4px solid #e69f00; padding: .5rem .9rem }
figure { margin: .8rem 0 1.4rem } figure > img { display: block; width: 100%; height: auto }
figcaption { max-width: 90ch; margin-top: .3rem }
table { border-collapse: collapse; font-size: .84rem; line-height: 1.4; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top }
th { text-align: right; vertical-align: bottom; background: var(--soft); font-weight: 600 }
td.text, th.text { text-align: left }
.wide { overflow-x: auto; max-width: 100%; border: 1px solid var(--line); margin: .5rem 0 }
.wide td { white-space: nowrap } .wide th { min-width: 5.5em }
.wide td:first-child, .wide th:first-child { position: sticky; left: 0; background: #fff; text-align: left }
.wide th:first-child { background: var(--soft) }
details { margin: .7rem 0 } summary { cursor: pointer; font-weight: 600; padding: .2rem 0 }
.cards { width: 100%; table-layout: fixed } .cards td, .cards th { text-align: left; padding: .5rem .5rem }
.cards td > div { margin-top: .25rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .9rem }
.columns { columns: 20em; padding: 0; list-style: none; font-size: .9rem }
dt { color: var(--dim) } dd { margin: 0; min-width: 0 } code { font-size: .86em; overflow-wrap: anywhere }
@media screen and (max-width: 820px) {
  body { padding: 1rem .9rem 3rem }
  .cards, .cards tbody, .cards tr, .cards td { display: block; width: auto }
  .cards thead { display: none }
  .cards tr { border: 1px solid var(--line); margin: .7rem 0; padding: .2rem 0 }
  .cards td { border: 0; padding: .15rem .8rem .15rem 8.2rem; min-height: 1.5rem; position: relative }
  .cards td::before { content: attr(data-label); position: absolute; left: .8rem; width: 7rem; color: var(--dim) }
  .cards td.whole { padding-left: .8rem } .cards td.whole::before { content: none }
  dl { grid-template-columns: 1fr } dd { margin-bottom: .4rem }
}
@media print {
  @page { size: A4; margin: 14mm 12mm }
  body { font-size: 10pt; max-width: none; padding: 0 }
  nav { display: none } a { color: inherit; text-decoration: none }
  h2 { break-before: page; border-top: 0 } section:first-of-type h2 { break-before: auto }
  h2, h3, summary, caption { break-after: avoid } figure, tr, .film { break-inside: avoid }
  figure > img { max-height: 235mm; object-fit: contain; object-position: left top }
  details::details-content { content-visibility: visible; display: block; height: auto }
  @page wide { size: A4 landscape; margin: 10mm }
  details:has(.wide) { page: wide }
  .wide { overflow: visible; border: 0 } .wide table { font-size: 5.6pt; width: 100% }
  .wide td, .wide th { white-space: normal; padding: 1pt 1.5pt; min-width: 0; overflow-wrap: normal }
  .wide td:first-child, .wide th:first-child { position: static }
  .cards { font-size: 7.6pt } .cards td, .cards th { padding: 3pt } .cards .small { font-size: 6.8pt }
  thead { display: table-header-group }
}
"""
"""Tables of class `wide` scroll within the column; those of class `cards` become a card a row on a narrow screen, where
the attribute `data-label` of a cell names it, but for cells of class `whole`."""

SCRIPT = """
const folded = [];
addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach(
  one => { folded.push(one); one.open = true }));
addEventListener("afterprint", () => folded.splice(0).forEach(one => { one.open = false }));
function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const around = target && target.closest("details");
  if (around) { around.open = true; target.scrollIntoView() }
}
addEventListener("hashchange", unfold); unfold();
"""
"""Opens what is folded before printing, and around the target of a link."""


def html_page(title: str, intro: str, sections: Mapping[str, str], style: str = "") -> str:
    """A page: its title, what stands below it (HTML), links to the sections, and the sections (heading -> HTML).

    Sections without a body are left out. `style` is CSS of its own, after `PAGE_STYLE`.
    """
    shown = {heading: body for heading, body in sections.items() if body}
    links = "".join(f"<a href='#{section_id(one)}'>{escape(one)}</a>" for one in shown)
    body = "\n".join(
        f"<section><h2 id='{section_id(heading)}'>{escape(heading)}</h2>\n{part}</section>"
        for heading, part in shown.items()
    )
    return (
        f"<!doctype html>\n<html lang=en>\n<head><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width, initial-scale=1'>\n<title>{escape(title)}</title>\n"
        f"<style>{PAGE_STYLE}{style}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n{intro}<nav>{links}</nav>\n{body}\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def anchor(title: str) -> str:
    """The id of a figure on the page."""
    return "figure-" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def section_id(title: str) -> str:
    """The id of a section's heading."""
    return "section-" + anchor(title).removeprefix("figure-")


def html_figure(title: str, uri: str, caption: str, words: str = "") -> str:
    """A picture with its heading and caption, which are plain text. `words` follow the title in the heading."""
    heading = escape(f"{title}: {words}" if words else title)
    return (
        f"<figure id='{anchor(title)}'><h3>{heading}</h3><img alt='{heading}' src='{uri}'>"
        f"<figcaption>{escape(' '.join(caption.split()))}</figcaption></figure>"
    )


def folded(words: str, body: str) -> str:
    """A body behind a line of words, open in print."""
    return f"<details><summary>{escape(words)}</summary>\n{body}</details>" if body else ""


def html_table(kind: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    """A table of class `kind`, of rows made by `row`."""
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in heads)
    body = "\n".join(rows)
    return f"<table class='{kind}'><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def html_facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values, plain text."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f"<dl>{items}</dl>"
