"""Events in figures: words that print over no others, and when what an alarm is about began."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from spectra.draw.marks import mark_events


def events(*found: tuple[str, int, dict]) -> pd.DataFrame:
    rows = [{"event": e, "step": s, "superseded": False, "details": d} for e, s, d in found]
    return pd.DataFrame(rows, columns=["event", "step", "superseded", "details"])


def panel(found: pd.DataFrame, shape: tuple[int, int] = (1, 1), size: tuple[float, float] = (4.3, 3.6)) -> Figure:
    figure = Figure(figsize=size, layout="constrained")
    for axes in np.ravel(figure.subplots(*shape)):
        axes.plot([0, 1000], [1, 2])
        axes.set_title("a title")
        axes.set_xlabel("step")
        mark_events(axes, found)
    return figure


def test_an_onset_is_marked_beside_the_alarm_that_tells_of_it() -> None:
    found = events(
        ("collapse", 400, {"onset": 250}), ("alarm", 400, {"onset": 250, "cause": "collapse"}),
        ("spike", 600, {"onset": 590}), ("alarm", 800, {"onset": 800, "cause": "explosion"}),
        ("alarm", 900, {"onset": "x", "cause": "explosion"}),
    )  # fmt: skip
    (axes,) = panel(found).axes
    assert [text.get_text().strip() for text in axes.texts] == [
        "collapse began", "collapse, alarm", "spike", "alarm", "alarm",
    ]  # fmt: skip
    assert [line.get_xdata()[0] for line in axes.lines[1:]] == [250, 400, 600, 800, 900]
    assert axes.lines[1].get_linestyle() == ":"


@pytest.mark.parametrize(("shape", "size"), [((1, 1), (4.3, 3.6)), ((2, 3), (14.6, 7.2)), ((1, 2), (9.0, 3.4))])
def test_no_words_print_over_others_or_outside(shape: tuple[int, int], size: tuple[float, float]) -> None:
    random = np.random.default_rng(0)
    for _ in range(4):
        steps = sorted({*random.integers(0, 1000, size=14).tolist(), 500, 501, 505, 510, 999})
        kinds = ("alarm", "spike", "non_finite", "first_non_finite")
        found = events(*((kinds[i % 4], step, {}) for i, step in enumerate(steps)))
        figure = panel(found, shape, size)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        for axes in figure.axes:
            boxes = [text.get_window_extent(canvas.get_renderer()) for text in axes.texts]
            assert len(boxes) >= 5
            assert len(axes.lines) == len(steps) + 1  # a line at each, with words or without
            assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
            frame = axes.get_window_extent(canvas.get_renderer())
            assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 + 2 and frame.y0 <= box.y0 for box in boxes)
