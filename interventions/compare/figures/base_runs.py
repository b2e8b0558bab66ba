"""The course of each base run: FID, spread and D's loss, with the onset of its collapse."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from interventions.compare.collect import Comparison
from interventions.compare.figures.marks import mark_branch, mark_onset
from interventions.compare.series import BaseCourse, base_courses
from spectra.draw.charts import literal
from spectra.draw.look import BLUE, GREEN, PURPLE, TEXT, WIDTH, logarithmic, mark_broken, new_figure, plain  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = (("FID (raw weights)", "fid", BLUE), ("spread (share)", "spread", GREEN), ("D's loss", "loss", PURPLE))


def draw_base_runs(comparison: Comparison) -> Figure | None:
    """Each base run from its beginning, one below the other; None without any scores."""
    return draw_base_courses(base_courses(comparison))


def draw_base_courses(courses: Sequence[BaseCourse]) -> Figure | None:
    """FID, spread and D's loss of base runs, a row each; the onset of the collapse and the branching points marked."""
    if not courses:
        return None
    figure = new_figure(1.75 * len(courses) + 0.35, WIDTH)
    cells = figure.subplots(len(courses), len(PANELS), squeeze=False, sharex="row", sharey="col")
    for number, (row, course) in enumerate(zip(cells, courses, strict=True)):
        for axes, (title, name, colour) in zip(row, PANELS, strict=True):
            _draw_panel(axes, course, name, colour)
            if not number:
                axes.set_title(title, fontsize=9)
            if name == "fid":
                logarithmic(axes)
        if len(courses) > 1:
            row[0].set_ylabel(literal(course.base), **TEXT)
    figure.supxlabel("step", **TEXT)
    return figure


def _draw_panel(axes: Axes, course: BaseCourse, name: str, colour: str) -> None:
    series = getattr(course, name)
    if series is not None:
        axes.plot(*series, color=colour, linewidth=1.2, marker="." if len(series[0]) < 12 else None)
        mark_broken(axes, series, {"color": colour})
    else:
        axes.text(0.5, 0.5, "not recorded", ha="center", va="center", transform=axes.transAxes, **TEXT)
    for step in course.branched_at:
        mark_branch(axes, step)
    if course.onset is not None:
        mark_onset(axes, course.onset)
    plain(axes)
    axes.tick_params(labelleft=True)
    if name == "loss" and series and any(math.isfinite(value) for value in series[1]):
        finite = sorted(value for value in series[1] if math.isfinite(value))
        axes.set_ylim(bottom=min(0.0, finite[0]))
