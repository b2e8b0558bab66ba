"""How figures look on the page."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg

from spectra.draw.look import data_uri, new_figure


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
