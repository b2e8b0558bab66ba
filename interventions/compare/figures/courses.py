"""The courses of runs after the branching point, or from the beginning: one panel per entry, unchanged runs in grey."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from interventions.compare.collect import Comparison, Row
from interventions.compare.series import Series, d_loss_series, score_series, sigma_series
from spectra.draw.charts import literal
from spectra.draw.look import (  # fmt: skip
    BLUE,
    GREY,
    ORANGE,
    TEXT,
    grid_of,
    legend_above,
    logarithmic,
    mark_broken,
    plain,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Reader = Callable[[dict[str, Any], int], "Series | None"]
"""Of a run's frames and its first step."""
WIDE = 20.0
"""Values beyond this on either side need a logarithm."""


def draw_scores(comparison: Comparison) -> Figure | None:
    """FID of raw weights, one panel per entry."""
    return entry_panels(comparison, lambda frames, begin: score_series(frames, begin, "fid"), "FID", log=True)


def draw_spread(comparison: Comparison) -> Figure | None:
    """Spread within a class, as a share of the real images'."""
    return entry_panels(comparison, lambda frames, begin: score_series(frames, begin, "spread_share"), "spread (share)")


def draw_d_loss(comparison: Comparison) -> Figure | None:
    """D's loss, a running mean over 25 steps (Appendix G.1: 0 to 3, and 300 when D is frozen)."""
    return entry_panels(comparison, d_loss_series, "D's loss", log="where wide")


def draw_sigma(comparison: Comparison) -> Figure | None:
    """The largest sigma_0 of G's layers."""
    return entry_panels(comparison, lambda frames, begin: sigma_series(frames, begin, "G"), "sigma_0", log=True)


def draw_sigma_d(comparison: Comparison) -> Figure | None:
    """The largest sigma_0 of D's layers."""
    return entry_panels(comparison, lambda frames, begin: sigma_series(frames, begin, "D"), "sigma_0", log=True)


def entry_panels(comparison: Comparison, read: Reader, label: str, *, log: bool | str = False) -> Figure | None:
    """One panel per entry with its runs of all base runs, and the unchanged runs of these base runs in grey.

    `log`: True, or "where wide" for a symmetric logarithm where the values leave -WIDE to WIDE. None without data.
    """
    found = {id(row): read(comparison.frames(row.outcome.path), row.outcome.begin) for row in comparison.rows}
    arms: dict[str, list[Row]] = {}
    for row in comparison.rows:
        arms.setdefault(row.arm, []).append(row)
    panels = [(entry, arms[entry]) for entry in comparison.entries() or arms if any(found[id(r)] for r in arms[entry])]
    if not panels:
        return None
    figure, cells = grid_of(len(panels), sharey=True)
    for axes, (entry, rows) in zip(cells, panels, strict=True):
        beside = {id(other): other for row in rows for other in comparison.unchanged(row.base, row.control_entry)}
        for row in [*(other for other in beside.values() if other.arm != entry), *rows]:
            if series := found[id(row)]:
                _draw_run(axes, row, series, changed=row.arm == entry)
        scratch = rows[0].kind == "scratch" and not rows[0].is_alone
        axes.set_title(f"{literal(entry)}{' (from scratch)' if scratch else ''}", fontsize=8.5)
        plain(axes)
    _scale(cells, label, log)
    figure.supxlabel("steps after the branching point, or from the beginning", **TEXT)
    legend_above(figure, cells)
    return figure


def _draw_run(axes: Axes, row: Row, series: Series, *, changed: bool) -> None:
    begin, (steps, values) = row.outcome.begin, series
    after = [step - begin for step in steps]
    style: dict[str, Any] = {"color": BLUE, "linewidth": 1.1} if changed else {"color": GREY, "linewidth": 0.7}
    if row.seed is not None and changed:
        style |= {"linestyle": ":"}
    label = "the entry's runs" if changed and row.seed is None else "under further seeds" if changed else "unchanged"
    axes.plot(after, values, label=label, zorder=3 if changed else 2, marker="." if len(after) < 3 else None, **style)
    mark_broken(axes, (after, values), style)
    onset = row.outcome.collapse
    if changed and onset is not None and not row.outcome.collapsed_before:
        place = min(range(len(steps)), key=lambda number: abs(steps[number] - onset))
        if math.isfinite(values[place]):
            axes.plot(
                after[place], values[place], "v", color=ORANGE, markersize=5, markeredgecolor="white",
                markeredgewidth=0.5, zorder=4, label="begin of collapse",
            )  # fmt: skip


def _scale(cells: list[Axes], label: str, log: bool | str) -> None:
    limits = [abs(limit) for axes in cells for limit in axes.dataLim.intervaly if math.isfinite(limit)]
    is_wide = max(limits, default=0.0) > WIDE
    for number, axes in enumerate(cells):
        if log is True:
            logarithmic(axes)
        elif log and is_wide:
            axes.set_yscale("symlog")
        if axes.get_subplotspec().is_first_col() or not number:  # type: ignore[union-attr]
            axes.set_ylabel(f"{label} (symmetric log)" if log == "where wide" and is_wide else label, **TEXT)
