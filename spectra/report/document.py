"""The page of one run as a whole: its sections in order."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.draw.look import data_uri
from spectra.draw.page import folded, html_facts, html_figure, html_page, html_table
from spectra.record.events import BEGINNINGS, ENDINGS, ROUTINE
from spectra.report import figures
from spectra.report.layers import SCORING, Growth, Noteworthy, growths, noteworthy_layers
from spectra.report.words import event_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    Frames = Mapping[str, pd.DataFrame]

RUN_PAGE = "report.html"
MOST_EVENTS = 300
MOST_PICTURE = 1_500_000
"""Bytes of a picture that is taken into the page."""
_RECORDED_FACTS = {
    "version": "package version", "commit": "commit", "device": "machine", "threads": "threads", "python": "Python",
    "torch": "PyTorch", "numpy": "NumPy", "started": "started",
}  # fmt: skip
_STYLE = """
.layers th:nth-child(1) { width: 30% } .layers th:nth-child(2) { width: 13% } .layers th:nth-child(3) { width: 15% }
.layers th:nth-child(4) { width: 8% } .layers ul { margin: 0; padding-left: 1.1em }
.layers td { overflow-wrap: anywhere }
.grown th:nth-child(1) { width: 36% } .grown td { overflow-wrap: anywhere }
.events th:nth-child(1) { width: 9% } .events th:nth-child(2) { width: 16% } .events td { overflow-wrap: anywhere }
.picture > img { width: auto; max-width: 100% }
@media screen and (max-width: 820px) { .cards td.whole { font-weight: 600 } }
"""

_MOMENTS = (
    "By depth, at five moments of the run from light (the first measurement) to dark (the last). A cross at the top: "
    "not finite. Log scale."
)
_CAPTIONS: dict[str, str] = {
    "Spectra by depth": (
        f"sigma_0, the largest singular value of each weight as it is trained, and the stable rank, the square of "
        f"Frobenius norm / sigma_0: how many directions share the weight's energy. {_MOMENTS}"
    ),
    "sigma_0 over time": (
        "A line for each layer, dark lines are the first layers, light ones the last. Upright lines: events. A cross "
        "at the foot: a first measurement that is not finite."
    ),
    "Gradients by depth": (
        f"The length of each parameter's gradient before clipping, and of a step's update relative to the parameter. "
        f"{_MOMENTS}"
    ),
    "Gradient norms over time": "Over all of a network's parameters together. A cross at the top: not finite.",
    "Scalars": "Pale: as recorded. Blue: a running median over a fiftieth of the run. A cross at the top: not finite.",
}


def write_run_page(run: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a run; its path.

    Args:
        run: the run directory; it may still be training.
        out: the file; None: RUN/report.html.

    Raises:
        FileNotFoundError: `run` is not a run directory.
    """
    from spectra.record.files import make_folder, replacing

    path = Path(run) / RUN_PAGE if out is None else Path(out)
    text = run_page(run)
    make_folder(path.parent)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def run_page(run: str | Path) -> str:
    """The page of a run as HTML, with everything in it; sections without data are left out."""
    from spectra.detect.online import detect_run
    from spectra.record.frames import load

    run = Path(run)
    frames = load(run)
    layers = noteworthy_layers(frames, detect_run(run))
    spectra, gradients = frames["spectra"], frames["gradients"]
    by_depth = figures.draw_by_depth(spectra, "layer", {"sigma0": "sigma_0", "stable_rank": "stable rank"})
    quantities = {"gradient_norm": "gradient norm", "relative_update": "relative update"}
    sections = {
        "What to look at": _layers(layers, frames),
        "Spectra": _figure("Spectra by depth", by_depth) + _figure("sigma_0 over time", figures.draw_courses(frames)),
        "What grew most": _growth(growths(spectra)) if len(spectra) else "",
        "Gradients": _figure("Gradients by depth", figures.draw_by_depth(gradients, "parameter", quantities))
        + _figure("Gradient norms over time", figures.draw_gradient_norms(frames)),
        "Losses and other scalars": _figure("Scalars", figures.draw_scalars(frames)) + _further_scalars(frames),
        "Events": _events(frames["events"]),
        "Pictures": _picture(run),
        "Where this comes from": _origin(run),
    }
    name = run.resolve().name
    return html_page(f"Run {name}", f"<p>{escape(run_summary(frames))}</p>\n", sections, _STYLE)


def run_summary(frames: Frames) -> str:
    """What was recorded, in a few plain sentences."""
    spectra, scalars, events = frames["spectra"], frames["scalars"], frames["events"]
    recorded = [int(frame.step.max()) for frame in (spectra, scalars, frames["gradients"]) if len(frame)]
    words = [f"Recorded up to step {max(recorded):,}." if recorded else "Nothing was recorded but events."]
    if len(spectra):
        networks = spectra.network.nunique()
        steps = spectra.step.unique()
        words.append(
            f"{_count(spectra.layer.nunique(), 'weight matrix', 'weight matrices')} of {_count(networks, 'network')} "
            f"measured at {_count(len(steps), 'step')}, from {steps[0]:,} to {steps[-1]:,}."
        )
    kinds = [str(one) for one in events.event[~events.superseded.astype(bool)]]
    usual = {*ROUTINE, *BEGINNINGS, *ENDINGS}
    told = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds) if kind not in usual]
    words.append(f"Events: {', '.join(told)}." if told else "No alarm, no spike, and nothing that is not finite.")
    return " ".join(words)


def _count(number: int, word: str, plural: str = "") -> str:
    return f"{number:,} {word if number == 1 else plural or word + 's'}"


def _figure(title: str, figure: Figure | None) -> str:
    return "" if figure is None else html_figure(title, picture_of(figure), _CAPTIONS[title])


def picture_of(figure: Figure) -> str:
    """As a data URI."""
    figure.draw_without_rendering()  # long names at an axis need a second pass of the layout
    return data_uri(figure)


def _layers(found: Sequence[Noteworthy], frames: Frames) -> str:
    if frames["spectra"].empty:
        return ""
    if not found:
        return "<p>No layer stands out.</p>" + folded("How layers are chosen", f"<p class=small>{escape(SCORING)}</p>")
    heads = ("layer", "kind, shape", "sigma_0", "score", "why")
    rows = [
        _row(
            heads,
            f"<b>{_name(one.growth.layer)}</b>",
            escape(f"{one.growth.kind} {one.growth.shape}"),
            _from_to(one.growth),
            f"{one.score:.0f}",
            f"<ul>{''.join(f'<li>{escape(reason)}</li>' for reason in one.reasons)}</ul>",
        )
        for one in found
    ]
    of = frames["spectra"].layer.nunique()
    words = f"{_count(len(found), 'layer')} of {of:,}, the one to look at first on top."
    table = html_table("cards layers", heads, rows)
    return f"<p>{words}</p>\n{table}\n" + folded("How layers are chosen", f"<p class=small>{escape(SCORING)}</p>")


def _growth(known: Sequence[Growth]) -> str:
    heads = ("layer", "kind, shape", "sigma_0", "growth", "last fifth")
    rows = [
        _row(
            heads, f"<b>{_name(one.layer)}</b>", escape(f"{one.kind} {one.shape}"), _from_to(one), _times(one.factor),
            _times(one.late_factor),
        )
        for one in known
    ]  # fmt: skip
    shown = html_table("cards grown", heads, rows[:10])
    return shown + folded(f"The other {_count(len(rows) - 10, 'layer')}", html_table("cards grown", heads, rows[10:])
                          if len(rows) > 10 else "")  # fmt: skip


def _row(heads: Sequence[str], *cells: str) -> str:
    first, *others = zip(heads, cells, strict=True)
    body = f"<td class=whole data-label='{escape(first[0])}'>{first[1]}</td>"
    body += "".join(f"<td data-label='{escape(head)}'>{cell}</td>" for head, cell in others)
    return f"<tr>{body}</tr>"


def _name(layer: str) -> str:
    """May be broken at its dots."""
    return escape(layer).replace(".", ".<wbr>")


def _from_to(one: Growth) -> str:
    return f"{one.first:.3g} to {one.last:.3g}" if one.first == one.first else "not finite"


def _times(factor: float) -> str:
    return f"&times;{factor:.3g}" if factor == factor else "-"


def _further_scalars(frames: Frames) -> str:
    names = figures.scalar_names(frames)[figures.MOST_SCALARS :]
    scalars = frames["scalars"]
    last = {name: rows.value.to_numpy()[-1] for name, rows in scalars.groupby("name", observed=True) if len(rows)}
    body = html_facts([(name, f"{last[name]:.4g}") for name in names])
    return folded(f"The last value of {_count(len(names), 'further scalar')}", body) if names else ""


def _events(events: pd.DataFrame) -> str:
    valid = events[~events.superseded.astype(bool)]
    if valid.empty:
        return "<p>None.</p>"
    routine = valid[valid.event.isin(ROUTINE)]
    others = valid[~valid.event.isin(ROUTINE)]
    parts = [_event_table(others) if len(others) else ""]
    for kind, rows in routine.groupby("event", sort=True):
        parts.append(folded(_count(len(rows), str(kind)), _event_table(rows)))
    return "\n".join(parts)


def _event_table(events: pd.DataFrame) -> str:
    heads = ("step", "event", "details")
    shown = events.tail(MOST_EVENTS)
    rows = [
        _row(heads, f"step {one.step:,}", escape(str(one.event)), escape(_details(one.details)) or "-")
        for one in shown.itertuples()
    ]  # fmt: skip
    left = len(events) - len(shown)
    note = f"<p class=small>Without {_count(left, 'earlier one')}.</p>" if left else ""
    return html_table("cards events", heads, rows) + note


def _details(details: Mapping[str, Any], most: int = 300) -> str:
    """In words; a finding's layers by name alone."""
    fields = dict(details)
    if isinstance(fields.get("layers"), Mapping):
        fields["layers"] = ", ".join(fields["layers"])
    words = "  ".join(event_words(fields, whole=False))
    return words if len(words) <= most else words[:most] + " ..."


def _picture(run: Path) -> str:
    """The newest picture that the run left in its folder `samples`."""
    pictures = sorted((run / "samples").glob("*.png"))
    if not pictures or pictures[-1].stat().st_size > MOST_PICTURE:
        return ""
    uri = f"data:image/png;base64,{base64.b64encode(pictures[-1].read_bytes()).decode()}"
    words = escape(pictures[-1].name)
    caption = f"<figcaption>samples/{words}, the newest.</figcaption>"
    return f"<figure class=picture><img alt='{words}' src='{uri}'>{caption}</figure>"


def _origin(run: Path) -> str:
    """Code, machine and versions, as far as run.json tells, and the command of this page."""
    pairs: list[tuple[str, str]] = [("command", f"spectra report {run.resolve().name}")]
    try:
        known = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        known = {}
    if isinstance(known, dict):
        pairs += [
            (words, str(known[name])[:200])
            for name, words in _RECORDED_FACTS.items()
            if isinstance(known.get(name), str | int | float)
        ]
    return html_facts(pairs)
