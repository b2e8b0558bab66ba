"""The figures of a run's page: spectra and gradients by depth and over time, and the scalars."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra.draw.bursts import without_bursts
from spectra.draw.charts import literal
from spectra.draw.figures import draw_layers
from spectra.draw.look import BLUE, grid_of, legend_above, logarithmic, mark_broken, new_figure, plain
from spectra.draw.marks import mark_events

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Frames = Mapping[str, pd.DataFrame]

MOMENTS = 5
"""Steps that a figure by depth shows."""
MOST_NAMED = 40
"""Layers that have their names at an axis; with more, there are only numbers."""
MOST_SCALARS = 12


def draw_by_depth(frame: pd.DataFrame, subject: str, quantities: Mapping[str, str]) -> Figure | None:
    """A row for each network, a panel for each quantity (column -> title): its values by depth, at some moments.

    `subject` is the frame's column of layers or parameters. None where nothing of it was recorded.
    """
    shown = [name for name in quantities if name in frame and np.isfinite(frame[name].to_numpy()).any()]
    networks = list(dict.fromkeys(frame.network.astype(str)))
    if not shown or not networks:
        return None
    longest = max((_names_of(frame[frame.network == one], subject) for one in networks), key=len)
    room = 0.055 * max((len(name) for name in longest), default=0) if len(longest) <= MOST_NAMED else 0.2
    figure = new_figure((2.3 + room) * len(networks) + 0.3)
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, 0.04, 1, 0.96))  # a layout may miss the ends of the longest names by a letter
    grid = figure.subplots(len(networks), len(shown), squeeze=False, gridspec_kw={"hspace": 0.12})
    for row, network in zip(grid, networks, strict=True):
        mine = frame[frame.network == network]
        for axes, quantity in zip(row, shown, strict=True):
            _by_depth(axes, mine, subject, quantity)
            axes.set_title(f"{literal(network)} {quantities[quantity]}".strip(), fontsize=9)
    legend_above(figure, grid.ravel().tolist(), columns=MOMENTS)
    return figure


def _by_depth(axes: Axes, rows: pd.DataFrame, subject: str, quantity: str) -> None:
    import matplotlib

    names = rows[[subject, "depth"]].drop_duplicates().sort_values("depth")
    place = {name: i for i, name in enumerate(names[subject])}
    steps = np.unique(rows.step[rows[quantity].notna()])
    wanted = np.linspace(steps[0], steps[-1], MOMENTS) if len(steps) else np.zeros(0)
    moments = np.unique([steps[np.abs(steps - one).argmin()] for one in wanted]).astype(int)
    colours = matplotlib.colormaps["viridis_r"](np.linspace(0.05, 1, max(len(moments), 1)))
    for colour, step in zip(colours, moments, strict=False):
        now = rows[rows.step == step].sort_values("depth")
        x = np.array([place[name] for name in now[subject]])
        values = now[quantity].to_numpy()
        good = np.isfinite(values) & (values > 0)
        axes.plot(x[good], values[good], color=colour, lw=1.0, marker=".", ms=4, label=f"step {step:,}")
        _crosses(axes, x[~np.isfinite(values)])
    logarithmic(axes)
    plain(axes)
    if len(place) <= MOST_NAMED:
        axes.set_xticks(range(len(place)), [literal(one) for one in _names_of(rows, subject)], rotation=90, fontsize=6)
    else:
        axes.set_xlabel(f"{subject}, by depth", fontsize=8)
    axes.set_xlim(-0.5, len(place) - 0.5)


def _crosses(axes: Axes, x: Sequence[int] | np.ndarray) -> None:
    if len(x):
        style: dict[str, Any] = {"color": "black", "linestyle": "none", "marker": "x", "clip_on": False}
        axes.plot(x, [1.0] * len(x), transform=axes.get_xaxis_transform(), label="not finite", **style)


def _names_of(rows: pd.DataFrame, subject: str) -> list[str]:
    """The layers or parameters of one network by depth, named as in the frames; of long names the end."""
    names = rows[[subject, "depth"]].drop_duplicates().sort_values("depth")[subject].astype(str)
    return [name if len(name) <= 28 else "..." + name[-25:] for name in names]


def draw_courses(frames: Frames) -> Figure | None:
    """sigma_0 of every layer over the steps, a panel a network, with the events marked. None without any."""
    import matplotlib

    from spectra.draw.charts import Chart

    frames = without_bursts(frames)
    spectra = frames["spectra"]
    networks = list(dict.fromkeys(spectra.network.astype(str)))
    if not networks or not np.isfinite(spectra.sigma0.to_numpy()).any():
        return None
    figure, panels = grid_of(len(networks), height=3.0, per_row=min(2, len(networks)))
    for axes, network in zip(panels, networks, strict=True):
        mine = spectra[spectra.network == network]
        count = mine.layer.nunique()
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, count))
        draw_layers(axes, mine, Chart("sigma_0", "sigma0", r"$\sigma_0$"), [tuple(one) for one in colours])
        axes.set_title(f"{literal(network)} sigma_0".strip(), fontsize=9)
        logarithmic(axes)
        plain(axes)
        mark_events(axes, frames["events"])
    return figure


def draw_gradient_norms(frames: Frames) -> Figure | None:
    """The length of each network's whole gradient over the steps. None without gradients."""
    from spectra.record.frames import gradient_variance_in_time

    if frames["gradients"].empty or frames["gradients"].gradient_norm.isna().all():
        return None
    frames = without_bursts(frames)
    norms = gradient_variance_in_time(frames["gradients"])
    networks = list(dict.fromkeys(norms.network.astype(str)))
    figure, panels = grid_of(len(networks), height=2.2, per_row=min(2, len(networks)))
    for axes, network in zip(panels, networks, strict=True):
        rows = norms[norms.network == network]
        _line(axes, rows.step.to_numpy(), rows.norm.to_numpy(), log=True)
        axes.set_title(f"{literal(network)} length of the whole gradient".strip(), fontsize=9)
        mark_events(axes, frames["events"])
    return figure


def draw_scalars(frames: Frames) -> Figure | None:
    """The scalars, losses first, at most `MOST_SCALARS`: pale, with their running median on top. None without any."""
    names = scalar_names(frames)[:MOST_SCALARS]
    if not names:
        return None
    figure, panels = grid_of(len(names), height=1.9, per_row=min(3, len(names)))
    for axes, name in zip(panels, names, strict=True):
        rows = frames["scalars"][frames["scalars"].name == name]
        steps, values = rows.step.to_numpy(), rows.value.to_numpy()
        if len(rows) > 100:
            axes.plot(steps, np.where(np.isfinite(values), values, np.nan), color="0.8", lw=0.5)
            smooth = rows.value.where(np.isfinite(values)).rolling(len(rows) // 50, center=True, min_periods=1).median()
            axes.plot(steps, smooth.where(np.isfinite(values)), color=BLUE, lw=1.1)
            mark_broken(axes, (steps.tolist(), values.tolist()), {"color": "black"})
        else:
            _line(axes, steps, values)
        axes.set_title(literal(name if len(name) <= 40 else "..." + name[-37:]), fontsize=8)
        plain(axes)
    return figure


def scalar_names(frames: Frames) -> list[str]:
    """All scalars, losses first, then by their order in the record."""
    from spectra.detect.losses import LOSS_NAME

    names = [str(name) for name in dict.fromkeys(frames["scalars"].name.astype(str)) if name != "monitor/seconds"]
    return sorted(names, key=lambda name: re.fullmatch(LOSS_NAME, name) is None)


def _line(axes: Axes, steps: np.ndarray, values: np.ndarray, *, log: bool = False) -> None:
    shown = np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.nan)
    style: dict[str, Any] = {"color": BLUE, "lw": 1.1, "marker": "." if len(values) < 3 else None}
    axes.plot(steps, shown, **style)
    mark_broken(axes, (steps.tolist(), values.tolist()), {"color": "black"})
    if log:
        logarithmic(axes)
    plain(axes)
