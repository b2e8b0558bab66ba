"""What the page of a comparison has beyond `spectra.draw.page`: the table of claims, and film strips."""

from __future__ import annotations

STYLE = """
.claims th:nth-child(1) { width: 23% } .claims th:nth-child(2) { width: 14% } .claims th:nth-child(3) { width: 4% }
.claims th:nth-child(4) { width: 12% } .claims th:nth-child(5) { width: 7% } .claims th:nth-child(6) { width: 8% }
.claims th:nth-child(8) { width: 7.5% } .untested th { width: auto !important }
.symbol { display: inline-block; min-width: 1.1em; text-align: center }
.supported b:first-child { color: inherit } .supported .verdict > b { color: var(--green) }
.contradicted .verdict > b { color: var(--orange) }
.supported td:first-child { box-shadow: inset 4px 0 0 var(--green) }
.contradicted td:first-child { box-shadow: inset 4px 0 0 var(--orange) }
.film { display: flex; flex-wrap: wrap; gap: .6rem 1.4rem; margin: .4rem 0 1.2rem }
.film figure { margin: 0; flex: 1 1 190px; max-width: 340px }
.film img { width: 100%; image-rendering: pixelated } .film figcaption { margin: 0 0 .25rem; color: var(--ink) }
"""
