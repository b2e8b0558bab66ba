"""The page as a whole: its sections in order, each made of figures and tables that others draw."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from interventions.compare.collect import Comparison
from interventions.compare.figures.base_runs import draw_base_courses
from interventions.compare.figures.registry import COMPARISON_FIGURES
from interventions.compare.origin import Origin, duration, origin_of
from interventions.compare.page.captions import CAPTIONS, PLAIN_TITLES
from interventions.compare.page.claims_section import claims_section
from interventions.compare.page.film import film_strip_of
from interventions.compare.page.style import STYLE
from interventions.compare.series import BaseCourse, base_courses
from interventions.compare.tables import NO_SCORES, TEXTS, sections
from spectra.draw import page
from spectra.draw.look import data_uri, png_uri
from spectra.draw.page import anchor, folded

if TYPE_CHECKING:
    import pandas as pd

    from interventions.compare.claims.judge import Verdict

EFFECT_FIGURES = ("Effects",)
SURVIVAL_FIGURES = ("Survival", "Survival, from scratch")
BASES_FIGURE = "Base runs"
SPECTRA_FIGURES = ("Figure 20", "Figure 27", "Figure 20, from scratch", "Figure 27, from scratch")


def page_of(comparison: Comparison, verdicts: Sequence[Verdict] = ()) -> str:
    """The page of a comparison as HTML, with everything in it: no file or address outside is needed.

    The claims come first if any of them was tested; sections without data are left out.
    """
    pictures, courses = _pictures(comparison), base_courses(comparison)
    others = [title for title in pictures if title not in (*EFFECT_FIGURES, *SURVIVAL_FIGURES, *SPECTRA_FIGURES)]
    origin = origin_of(comparison)
    claims = claims_section(verdicts, [*pictures, *([BASES_FIGURE] if courses else [])])
    parts = {
        "Claims": claims if any(one.n for one in verdicts) else "",
        "Effects of the interventions": _figures(pictures, EFFECT_FIGURES),
        "Survival": _figures(pictures, SURVIVAL_FIGURES),
        "Base runs": _base_runs(courses) if courses else "",
        "Spectra and losses": _figures(pictures, SPECTRA_FIGURES),
        "Courses of all entries": folded("FID, spread, D's loss and sigma_0 over time", _figures(pictures, others)),
        "Tables": _tables(comparison),
        "Where this comes from": _origin(origin, comparison),
    }
    warning = "" if comparison.scored else f"<p class=warn>{escape(NO_SCORES)}</p>"
    intro = f"<p>{escape(studied(comparison, origin))}</p>\n{warning}"
    return page.html_page(comparison.title, intro, parts, STYLE)


def studied(comparison: Comparison, origin: Origin) -> str:
    """What was studied, in a few plain sentences."""
    bases = dict.fromkeys(row.base for row in comparison.rows)
    branches = [entry for entry in comparison.entries() if comparison.of(entry)[0].kind != "scratch"]
    scratch = [entry for entry in comparison.entries() if comparison.of(entry)[0].kind == "scratch"]
    begins = sorted({row.outcome.begin for row in comparison.rows if row.kind != "scratch"})
    lengths = sorted({row.outcome.last - row.outcome.begin for row in comparison.rows if row.kind == "branch"})
    base = f"{_count(len(bases), 'base run')}" + (
        f" of the preset {', '.join(origin.presets)}" if origin.presets else ""
    )
    words = [f"This page compares runs of GAN training that differ in one thing at a time, over {base}."]
    if begins:
        where = f"at step {begins[0]:,}" if len(begins) == 1 else f"at steps {begins[0]:,} to {begins[-1]:,}"
        long = f"up to {lengths[-1]:,} steps further" if lengths else "further"
        words.append(
            f"Each was branched {where} and trained {long}, unchanged and with {_count(len(branches), 'change')}."
        )
    if scratch:
        words.append(f"From scratch, with {_count(len(scratch), 'change')}, as many steps as the base runs.")
    ended = sum(row.outcome.done for row in comparison.rows)
    done = _count(len(comparison.rows), "run") + (
        "" if ended == len(comparison.rows) else f", {ended} of them finished"
    )
    spent = "" if origin.seconds is None else f"; together they trained for {duration(origin.seconds)}"
    words.append(f"In all: {done}{spent}.")
    return " ".join(words)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _pictures(comparison: Comparison) -> dict[str, str]:
    """Title -> data URI of every figure that has data, but for that of the base runs."""
    drawn = {title: draw(comparison) for title, draw in COMPARISON_FIGURES.items() if title != BASES_FIGURE}
    return {title: data_uri(figure) for title, figure in drawn.items() if figure is not None}


def _figures(pictures: dict[str, str], titles: Sequence[str]) -> str:
    return "\n".join(
        page.html_figure(title, pictures[title], _caption(title), PLAIN_TITLES.get(title, ""))
        for title in titles
        if title in pictures
    )


def _caption(title: str) -> str:
    return CAPTIONS.get(title) or (COMPARISON_FIGURES[title].__doc__ or "")


def _base_runs(courses: Sequence[BaseCourse]) -> str:
    parts = [f"<p id='{anchor(BASES_FIGURE)}'>{escape(CAPTIONS[BASES_FIGURE])}</p>"]
    for course in courses:
        ending = "no collapse seen" if course.onset is None else f"collapse from step {course.onset:,}"
        parts.append(f"<h3>{escape(course.base)}: {ending}</h3>")
        figure = draw_base_courses([course])
        assert figure is not None
        name = escape(f"FID, spread and D's loss of {course.base}")
        parts.append(f"<figure><img alt='{name}' src='{data_uri(figure)}'></figure>")
        stills = film_strip_of(course)
        for one in stills:
            classes = f"classes {', '.join(one.classes)} by rows"
            caption = f"<b>{escape(one.when)}</b>, step {one.step:,}<br>{escape(one.scores) or '&nbsp;'}"
            parts.append("<div class=film>" if one is stills[0] else "")
            alt = escape(f"samples of {course.base} at step {one.step}, {classes}", quote=True)
            parts.append(
                f"<figure><figcaption>{caption}</figcaption><img alt='{alt}' src='{png_uri(one.picture)}'></figure>"
            )
        if stills:
            parts.append(f"</div><p class=small>Rows: classes {escape(', '.join(stills[0].classes))}; raw weights.</p>")
    return "\n".join(part for part in parts if part)


def _tables(comparison: Comparison) -> str:
    parts = []
    for title, words, frame in sections(comparison):
        body = _table(frame) if frame is not None and len(frame) else "<p>No results.</p>"
        parts.append(folded(title, f"{body}<p class=small>{escape(words)}</p>"))
    return "\n".join(parts)


def _table(frame: pd.DataFrame) -> str:
    def cell(tag: str, name: str, value: Any) -> str:
        if name not in TEXTS:
            return f"<{tag}>{escape(str(value))}</{tag}>"
        words = escape(str(value)).replace(".", ".<wbr>")  # a layer's name may be broken at its dots
        return f"<{tag} class=text>{words}</{tag}>"

    def cells(tag: str, values: Sequence[Any]) -> str:
        return "".join(cell(tag, name, value) for name, value in zip(frame.columns, values, strict=True))

    rows = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in frame.itertuples(index=False))
    head = f"<tr>{cells('th', list(frame.columns))}</tr>"
    return f"<div class=wide><table><thead>{head}</thead>\n<tbody>{rows}</tbody></table></div>"


def _origin(origin: Origin, comparison: Comparison) -> str:
    parts = []
    if comparison.notes:
        parts.append("<h3>Notes</h3><ul>" + "".join(f"<li>{escape(one)}</li>" for one in comparison.notes) + "</ul>")
    pairs = [*origin.facts]
    if origin.seconds is not None:
        pairs.append(("training, all runs", duration(origin.seconds)))
    if pairs:
        parts.append(f"<h3>Code, machine and time</h3>{page.html_facts(pairs)}")
    if origin.commands:
        lines = "".join(f"<p><code>{escape(command)}</code></p>" for command in origin.commands)
        parts.append(f"<h3>Command</h3>{lines}")
    if origin.configuration:
        settings = origin.configuration.items()
        items = "".join(f"<li><code>{escape(name)}: {escape(value)}</code></li>" for name, value in settings)
        parts.append(f"<h3>Configuration: what differs from the defaults</h3><ul class=columns>{items}</ul>")
    return "\n".join(parts)
