"""Events as marks in a figure: a line at each, with words that print over no others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectra.draw.charts import MARKED_EVENTS, literal
from spectra.extensions import load_extensions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_SIZE = 6.0
"""Points, of the words."""
_LETTER, _LINE = 0.65, 1.5
"""Width of a letter and height of a line, in sizes; no font is wider on average."""


@dataclass
class _Mark:
    colour: str
    dash: str
    words: list[str]


def mark_events(axes: Axes, events: pd.DataFrame) -> None:
    """Vertical lines at alarms, and at resumes that changed the configuration; those of a step share their words.

    Where an alarm says that its cause began earlier, a dotted line marks that step too. Words for which there is no
    room are left out, their lines are not.
    """
    low, high = axes.get_xlim()
    marks = {step: mark for step, mark in sorted(_marks(events).items()) if low <= step <= high}
    taken: list[tuple[float, float, float, float]] = []
    for step, mark in marks.items():
        axes.axvline(step, color=mark.colour, lw=0.9, ls=mark.dash, zorder=0)
        _write(axes, step, mark, taken)
    axes.set_xlim(low, high)


def _marks(events: pd.DataFrame) -> dict[int, _Mark]:
    load_extensions()
    found: dict[int, _Mark] = {}

    def add(step: int, colour: str, dash: str, words: str) -> None:
        mark = found.setdefault(step, _Mark(colour, dash, []))
        if words not in mark.words:
            mark.words.append(words)

    for event in events[~events.superseded.astype(bool)].itertuples():
        changed = event.event == "resumed" and event.details.get("changes")
        if event.event not in MARKED_EVENTS and not changed:
            continue
        colour = MARKED_EVENTS.get(event.event, "black")
        add(event.step, colour, "--", "changed" if changed else event.event)
        onset = event.details.get("onset")
        if event.event == "alarm" and isinstance(onset, int) and onset < event.step:
            cause = event.details.get("cause", "its cause")
            add(onset, MARKED_EVENTS.get(cause, colour), ":", f"{cause} began")
    return found


def _write(axes: Axes, step: int, mark: _Mark, taken: list[tuple[float, float, float, float]]) -> None:
    """Write a mark's words beside its line, from the top down, below those in the way.

    `taken`: the boxes of words so far, (left, right, bottom, top), as shares of the axes."""
    text = ", ".join(mark.words)
    low, high = axes.get_xlim()
    place = (step - low) / (high - low)
    point = axes.figure.dpi / 72
    width, height = (0.8 * side / point for side in (axes.bbox.width, axes.bbox.height))  # the layout takes some yet
    broad, long = _SIZE * _LINE / width, _SIZE * _LETTER * len(text) / height
    on_left = place + broad > 1
    left, right = (place - broad, place) if on_left else (place, place + broad)
    top = 0.99
    for _ in range(len(taken) + 1):
        over = [b for x0, x1, b, t in taken if x0 < right and left < x1 and b < top and top - long < t]
        if not over:
            break
        top = min(over) - 0.02
    if top - long < 0 and taken:
        return
    taken.append((left, right, top - long, top))
    axes.text(
        step, top, f" {literal(text)} ", color=mark.colour, fontsize=_SIZE, va="top", rotation=90,
        ha="right" if on_left else "left", transform=axes.get_xaxis_transform(),
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.2},
    )  # fmt: skip
