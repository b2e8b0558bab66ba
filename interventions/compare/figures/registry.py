"""Every figure of a comparison by its title."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from interventions.compare.collect import Comparison
from interventions.compare.figures.base_runs import draw_base_runs
from interventions.compare.figures.courses import draw_d_loss, draw_scores, draw_sigma, draw_sigma_d, draw_spread
from interventions.compare.figures.effect_sizes import draw_effects
from interventions.compare.figures.spectra_panels import (
    draw_figure_20,
    draw_figure_27,
    draw_scratch_figure_20,
    draw_scratch_figure_27,
)  # fmt: skip
from interventions.compare.figures.survival_curves import draw_scratch_survival, draw_survival

COMPARISON_FIGURES: dict[str, Callable[[Comparison], Any]] = {
    "Effects": draw_effects,
    "Survival": draw_survival,
    "Survival, from scratch": draw_scratch_survival,
    "Base runs": draw_base_runs,
    "Figure 20": draw_figure_20,
    "Figure 27": draw_figure_27,
    "Figure 20, from scratch": draw_scratch_figure_20,
    "Figure 27, from scratch": draw_scratch_figure_27,
    "FID": draw_scores,
    "Spread within a class": draw_spread,
    "D's loss": draw_d_loss,
    "Largest sigma_0 in G": draw_sigma,
    "Largest sigma_0 in D": draw_sigma_d,
}
"""Title -> what draws it: a matplotlib figure, or None without data. One of your own is shown among the courses of the
page; its docstring is its caption."""
