"""The page's look: one column, tables that scroll or fold within it, and a version for print."""

from __future__ import annotations

STYLE = """
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
.claims { width: 100%; table-layout: fixed } .claims td, .claims th { text-align: left; padding: .5rem .5rem }
.claims th:nth-child(1) { width: 23% } .claims th:nth-child(2) { width: 14% } .claims th:nth-child(3) { width: 4% }
.claims th:nth-child(4) { width: 12% } .claims th:nth-child(5) { width: 7% } .claims th:nth-child(6) { width: 8% }
.claims th:nth-child(8) { width: 7.5% } .untested th { width: auto !important }
.claims td > div { margin-top: .25rem } .symbol { display: inline-block; min-width: 1.1em; text-align: center }
.supported b:first-child { color: inherit } .supported .verdict > b { color: var(--green) }
.contradicted .verdict > b { color: var(--orange) }
.supported td:first-child { box-shadow: inset 4px 0 0 var(--green) }
.contradicted td:first-child { box-shadow: inset 4px 0 0 var(--orange) }
.film { display: flex; flex-wrap: wrap; gap: .6rem 1.4rem; margin: .4rem 0 1.2rem }
.film figure { margin: 0; flex: 1 1 190px; max-width: 340px }
.film img { width: 100%; image-rendering: pixelated } .film figcaption { margin: 0 0 .25rem; color: var(--ink) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; font-size: .9rem }
.columns { columns: 20em; padding: 0; list-style: none; font-size: .9rem }
dt { color: var(--dim) } dd { margin: 0; min-width: 0 } code { font-size: .86em; overflow-wrap: anywhere }
@media screen and (max-width: 820px) {
  body { padding: 1rem .9rem 3rem }
  .claims, .claims tbody, .claims tr, .claims td { display: block; width: auto }
  .claims thead { display: none }
  .claims tr { border: 1px solid var(--line); margin: .7rem 0; padding: .2rem 0 }
  .claims td { border: 0; padding: .15rem .8rem .15rem 8.2rem; min-height: 1.5rem; position: relative }
  .claims td::before { content: attr(data-label); position: absolute; left: .8rem; width: 7rem; color: var(--dim) }
  .claims td.claim { padding-left: .8rem } .claims td.claim::before { content: none }
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
  .claims { font-size: 7.6pt } .claims td, .claims th { padding: 3pt } .claims .small { font-size: 6.8pt }
  thead { display: table-header-group }
}
"""

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
