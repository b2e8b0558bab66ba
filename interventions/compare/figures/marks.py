"""Marks at the steps that a comparison is about: where a run collapsed, and where it branched off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spectra.draw.look import ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def mark_onset(axes: Axes, step: float, *, text: bool = True) -> None:
    """A line where samples began to collapse."""
    _mark(axes, step, "collapse" if text else "", "left", {"color": ORANGE, "linewidth": 1.2, "linestyle": "--"})


def mark_branch(axes: Axes, step: float) -> None:
    """A line at a branching point."""
    _mark(axes, step, "branch", "right", {"color": "black", "linewidth": 0.9, "linestyle": ":"})


def _mark(axes: Axes, step: float, text: str, side: str, style: dict[str, Any]) -> None:
    axes.axvline(step, zorder=1, **style)
    if text:
        place = axes.get_xaxis_transform()
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
        shift = {"left": 3, "right": -3}[side]
        axes.annotate(
            text, (step, 0.98), xycoords=place, xytext=(shift, 0), textcoords="offset points", fontsize=7, rotation=90,
            color=style["color"], va="top", ha=side, bbox=box,
        )  # fmt: skip
