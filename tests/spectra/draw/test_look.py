"""How figures look on the page."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from spectra.draw.look import data_uri, log_ticks, logarithmic, new_figure


def test_long_labels_are_whole_in_a_drawing_without_pixels() -> None:
    """An SVG's letters have their true width, which is that at many dots an inch."""
    figure = new_figure(2.0)
    axes = figure.subplots(1, 2)[0]
    axes.set_yticks([0], ["moments-zero  (11)"], fontsize=8)
    axes.tick_params(labelsize=7.5)
    data_uri(figure)
    figure.set_dpi(1200)
    renderer = FigureCanvasAgg(figure).get_renderer()
    assert min(label.get_window_extent(renderer).x0 for label in axes.get_yticklabels()) > 0


def test_a_log_axis_has_some_labels_whatever_it_spans() -> None:
    random = np.random.default_rng(0)
    for _ in range(2000):
        low = 10 ** random.uniform(-12, 12)
        high = low * (1 + 10 ** random.uniform(-2, 12))
        ticks = log_ticks(low, high)
        assert 3 <= len(ticks) <= 9, (low, high, ticks)
        assert all(low <= one <= high for one in ticks)
        assert ticks == sorted(set(ticks))
        labels = [f"{one:.4g}" for one in ticks]
        assert len(set(labels)) == len(labels), (low, high, labels)
    assert log_ticks(0.0, 1.0) == log_ticks(-1.0, 1.0) == log_ticks(1.0, float("inf")) == []


def test_constant_and_empty_panels_are_drawn_on_a_log_axis_too() -> None:
    figure = new_figure(2.0)
    constant, empty = figure.subplots(1, 2)
    constant.plot([1, 2], [3.0, 3.0])
    for axes in (constant, empty):
        logarithmic(axes)
    FigureCanvasAgg(figure).draw()
    low, high = constant.get_ylim()
    assert len([one for one in constant.get_yticks() if low <= one <= high]) >= 2
