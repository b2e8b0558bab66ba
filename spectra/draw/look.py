"""How the figures of a page look: sizes, colours that the colour-blind can tell apart, pictures for a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.0
"""Inches; every figure is this wide, so that its text has one size on the page."""
PER_ROW = 4
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
"""Of Okabe and Ito's colours, which people with any kind of colour vision can tell apart."""
GREY, BAND = "0.55", "0.88"
MOST_SVG = 120_000
"""Bytes. A larger drawing, such as one of many long lines, is smaller as a PNG."""
PNG_DPI = 130
LAYOUT_DPI = 400
"""Few pixels make letters narrower: what has room at 100 dpi is cut off in an SVG."""
TEXT: dict[str, Any] = {"fontsize": 8}


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def grid_of(panels: int, height: float = 1.9, per_row: int = PER_ROW, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, in rows of `per_row`; `height`: inches a row."""
    rows = math.ceil(panels / per_row)
    figure = new_figure(height * rows + 0.4)
    cells = figure.subplots(rows, per_row, squeeze=False, **shared).ravel()
    for axes in cells[panels:]:
        axes.axis("off")
    for axes in cells[max(panels - per_row, 0) : panels]:  # the lowest in its column shows the steps
        axes.tick_params(labelbottom=True)
    return figure, list(cells[:panels])


def plain(axes: Axes) -> None:
    """Small text, a faint grid, no frame at the top and at the right."""
    axes.tick_params(labelsize=7.5)
    axes.grid(alpha=0.25, linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)


def logarithmic(axes: Axes) -> None:
    """A log axis with some readable labels, also where it spans less than a decade."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter

    class Readable(LogLocator):
        def tick_values(self, vmin: float, vmax: float) -> list[float]:
            return log_ticks(vmin, vmax)

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(Readable())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    low, high = axes.get_ylim()
    axes.yaxis.set_minor_locator(LogLocator(subs=range(2, 10)) if high > 10 * low > 0 else FixedLocator([]))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="both", labelsize=7.5)


def log_ticks(low: float, high: float) -> list[float]:
    """Some round numbers, mostly four to eight, from `low` to `high`, which are above 0."""
    from matplotlib.ticker import MaxNLocator

    if not 0 < low < high < math.inf:
        return []
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for round_ones in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [one for decade in decades for n in round_ones if low <= (one := n * 10.0**decade) <= high]
        if len(ticks) >= 4:
            return ticks[:: math.ceil(len(ticks) / 8)]
    even = MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10], min_n_ticks=4).tick_values(low, high)
    return [float(one) for one in even if low <= one <= high]


def mark_broken(axes: Axes, found: tuple[list[int], list[float]], style: dict[str, Any]) -> None:
    """A cross at the top where a series stops being finite, because the end of a line is easily overlooked."""
    finite = [math.isfinite(value) for value in found[1]]
    broken = [step for step, before, now in zip(found[0], [True, *finite], finite, strict=False) if before and not now]
    if broken:
        marker = {"color": style["color"], "linestyle": "none", "marker": "x", "clip_on": False, "label": "not finite"}
        axes.plot(broken, [1.0] * len(broken), transform=axes.get_xaxis_transform(), **marker)


def legend_above(figure: Figure, panels: Sequence[Axes], columns: int = 5) -> None:
    """One legend for all panels, over them: not every panel has every line."""
    known: dict[str, Any] = {}
    for panel in panels:
        for line, label in zip(*panel.get_legend_handles_labels(), strict=True):
            known.setdefault(label, line)
    if known:
        figure.legend(
            list(known.values()), list(known), loc="outside upper center", ncols=columns, frameon=False, **TEXT
        )


def data_uri(figure: Figure) -> str:
    """The figure as a data URI: SVG, or PNG in few colours if that is smaller."""
    import matplotlib

    figure.set_dpi(LAYOUT_DPI)
    figure.draw_without_rendering()  # the layout, which takes longest, once
    figure.set_layout_engine("none")
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "page"}):  # the same bytes for the same figure
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    if buffer.tell() <= MOST_SVG:
        return _uri("svg+xml", buffer.getvalue())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PNG_DPI)
    return _uri("png", in_few_colours(buffer.getvalue()))


def in_few_colours(png: bytes) -> bytes:
    """A PNG with a palette of 128 colours, a third of the size."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def png_uri(picture: Any) -> str:
    """A Pillow image as a data URI."""
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    return _uri("png", buffer.getvalue())
