"""The paper's figures from any record (Section 4, Appendices F and G): layers coloured from red to violet with depth.

A figure is one function, listed in `FIGURES`. Nothing here touches pyplot or any other global state.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra.detect.sigma import Spikes
from spectra.draw.bursts import without_bursts
from spectra.draw.charts import Chart, charts_of, literal
from spectra.draw.look import logarithmic
from spectra.draw.marks import mark_events
from spectra.extensions import load_extensions
from spectra.record.damage import RecordDamage
from spectra.record.files import make_folder, replacing
from spectra.record.subjects import check_recorded

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYER_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.2)), (0, (1.5, 1)))
"""Neighbours by depth have similar colours, so they differ by this too, where there are many."""

Frames = Mapping[str, "pd.DataFrame"]


def draw_figures(run: str | Path, figures: Sequence[str] | None = None, out: str | Path | None = None) -> list[Path]:
    """Draw figures of a run as PNG files `figure-NAME.png`.

    Args:
        run: the run directory.
        figures: names from `FIGURES`; None: all of them.
        out: the folder to write to; None: RUN/figures.

    Returns:
        The files written.

    Raises:
        ValueError: an unknown figure, or a record without the numbers that one needs.
        FileNotFoundError: `run` is not a run directory.
    """
    return [path for path, _ in draw_with_titles(run, figures, out)]


def draw_with_titles(
    run: str | Path, figures: Sequence[str] | None = None, out: str | Path | None = None
) -> Iterator[tuple[Path, str]]:
    """As `draw_figures`: each file when it is written, and what it shows in a few words, "... (Figure 3)"."""
    from spectra.record.frames import load

    load_extensions()
    unknown = [name for name in figures or () if name not in FIGURES]
    if unknown:
        raise ValueError(f"unknown figure {unknown[0]!r}; known: {', '.join(FIGURES)}")
    frames = load(run)
    frames["events"] = _with_changes(frames["events"], Path(run))
    if frames["spectra"].empty:
        raise ValueError(
            f"{run} has no spectra: it was trained without a monitor, or ended before the first measurement (by "
            f"default step 20)"
        )
    folder = Path(run) / "figures" if out is None else Path(out)
    make_folder(folder)
    run_name = literal(Path(run).resolve().name)
    for name in figures or FIGURES:
        path = folder / f"figure-{name}.png"
        figure = FIGURES[name](frames)
        title = figure.get_suptitle()
        figure.suptitle(": ".join(filter(None, [run_name, title])), fontsize=11)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
        yield path, (title or (FIGURES[name].__doc__ or "").split("\n")[0]).replace("the paper's Figure", "Figure")


def _with_changes(events: pd.DataFrame, run: Path) -> pd.DataFrame:
    """The events, with one of kind "changed" where run.json says that the run branched off with changes."""
    import json

    import pandas as pd

    path = run / "run.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        step = (facts["parent"] or {}).get("step", 0) if facts.get("changes") else None
        if step is None or not facts["parent"]:
            return events
        changed = {"event": "changed", "step": int(step), "superseded": False, "details": {}}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        warnings.warn(
            f"{path} is damaged: whether the run is a changed branch is not marked", RecordDamage, stacklevel=3
        )
        return events
    return pd.DataFrame([changed, *events.to_dict("records")], columns=events.columns)


def depth_colours(count: int) -> list[tuple[float, float, float]]:
    """`count` colours from red to violet, dark enough for white paper."""
    from matplotlib.colors import hsv_to_rgb

    hues = np.linspace(0.0, 0.8, count)
    # Yellow and green look lighter than the other colours, so they are drawn darker.
    values = 0.95 - 0.25 * np.exp(-(((hues - 0.25) / 0.15) ** 2))
    return [tuple(hsv_to_rgb((hue, 0.95, value))) for hue, value in zip(hues, values, strict=True)]


def chart_of(quantity: str) -> Chart:
    """The chart that a probe declares for a quantity; where none does, a plain one."""
    from spectra.monitor.probes import PROBES

    load_extensions()
    charts = {chart.quantity: chart for probe in PROBES.values() for chart in probe.charts}
    return charts.get(quantity, Chart(quantity, quantity))


def draw_layers(
    axes: Axes, spectra: pd.DataFrame, chart: Chart, colours: Sequence[tuple[float, ...]] | None = None
) -> None:
    """One network's layers as lines over the steps, named as in the frames; a layer without such a number has no line.

    `colours`: one for each layer by depth; None: from red to violet.
    NaN and Inf break a line, and so does 0 on a log scale; the first step that is not finite is marked by a cross on
    the axis.
    """
    depths = spectra[["layer", "depth"]].drop_duplicates().sort_values("depth")
    dashes = LAYER_DASHES if len(depths) > 5 else LAYER_DASHES[:1]
    for number, (layer, colour) in enumerate(zip(depths.layer, colours or depth_colours(len(depths)), strict=True)):
        rows = spectra[spectra.layer == layer]
        values = rows[chart.quantity].to_numpy()
        if np.isnan(values).all():
            continue
        label = literal(layer)
        marker = "." if len(values) < 3 else None
        shown = np.where(values > 0, values, np.nan) if chart.log else np.where(np.isfinite(values), values, np.nan)
        axes.plot(rows.step, shown, color=colour, ls=dashes[number % len(dashes)], label=label, lw=1.0, marker=marker)
        measured = np.flatnonzero(~np.isfinite(values))
        if len(measured):
            place = (rows.step.to_numpy()[measured[0]], 0.02)
            axes.plot(*place, "x", color=colour, transform=axes.get_xaxis_transform(), clip_on=False)
    if not axes.lines:
        axes.text(0.5, 0.5, "not recorded", ha="center", va="center", transform=axes.transAxes, fontsize=8)
    elif chart.log:
        logarithmic(axes)
    axes.set_title(chart.label or chart.title, fontsize=10)
    axes.grid(alpha=0.25, which="both", lw=0.4)


def _finish(axes: Axes, frames: Frames) -> None:
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=7)
    mark_events(axes, frames["events"])


def _legend(axes: Axes, beside: Axes, title: str) -> None:
    """The layers of `axes`, in the empty axes beside it."""
    beside.axis("off")
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    columns = max(1, math.ceil(len(labels) / 24))
    size = 7 if len(labels) <= 24 else 5
    beside.legend(
        handles, labels, title=title, ncols=columns, fontsize=size, title_fontsize=8, loc="upper left", frameon=False,
        borderaxespad=0.0, handlelength=2.6, labelspacing=0.3,
    )  # fmt: skip


def _legend_width(frames: Frames) -> float:
    """How wide the layers' legend is, in panels."""
    spectra = frames["spectra"]
    longest = max((len(str(layer)) for layer in spectra.layer.cat.categories), default=10)
    most = spectra[["network", "layer"]].drop_duplicates().network.value_counts().max()
    return (0.12 + 0.013 * max(longest, 20)) * (1 if most <= 24 else 0.8 * math.ceil(most / 24))


def network_rows(frames: Frames, networks: Sequence[str], charts: Sequence[Chart | str], title: str = "") -> Figure:
    """A figure with rows for each network, a panel for each chart (or quantity), and the layers' legend at the right.

    The quantities are columns of `frames["spectra"]`. Raises `ValueError` for a network or a quantity that was not
    recorded, with the nearest that was.
    """
    spectra = frames["spectra"]
    known = [chart if isinstance(chart, Chart) else chart_of(chart) for chart in charts]
    for network in networks:
        check_recorded(network, networks_of(frames), "network")
    for chart in known:
        check_recorded(chart.quantity, [str(name) for name in spectra.columns], "quantity")
    return _rows(frames, [(network, spectra[spectra.network == network], known) for network in networks], title)


PANELS_PER_ROW = 3
"""Panels in a row; a network's further ones are in the rows below."""


def _rows(frames: Frames, networks: Sequence[tuple[str, pd.DataFrame, list[Chart]]], title: str) -> Figure:
    """As `network_rows`, of (network, its rows of a frame, charts)."""
    from matplotlib.figure import Figure

    rows = [
        (network, mine, charts[first : first + PANELS_PER_ROW], first == 0)
        for network, mine, charts in networks
        for first in range(0, len(charts), PANELS_PER_ROW)
    ]
    columns = max(len(charts) for _, _, charts, _ in rows)
    beside = _legend_width(frames)
    figure = Figure(figsize=(4.3 * (columns + beside), 3.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns + 1, squeeze=False, width_ratios=[1.0] * columns + [beside])
    for axes_of_row, (network, mine, charts, has_legend) in zip(grid, rows, strict=True):
        for axes in axes_of_row[len(charts) :]:
            axes.axis("off")
        for axes, chart in zip(axes_of_row, charts, strict=False):
            draw_layers(axes, mine, chart)
            axes.set_title(f"{literal(network)} {axes.get_title()}", fontsize=10)
            _finish(axes, frames)
        if has_legend:
            _legend(axes_of_row[0], axes_of_row[-1], f"layers of {literal(network)}, by depth")
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def networks_of(frames: Frames) -> list[str]:
    """The networks of a record in the order of first appearance."""
    return [str(name) for name in dict.fromkeys(frames["spectra"].network)]


def figure_3(frames: Frames) -> Figure:
    """sigma_0 of every layer of each network, before Spectral Normalization."""
    title = "first singular values of every layer (the paper's Figure 3)"
    return network_rows(without_bursts(frames), networks_of(frames), ["sigma0"], title)


def figure_20(frames: Frames) -> Figure:
    """sigma_0, sigma_1, sigma_2 of every layer of each network; Figures 21 to 26 show the same for other runs."""
    title = "largest three singular values of every layer (the paper's Figure 20)"
    return network_rows(without_bursts(frames), networks_of(frames), ["sigma0", "sigma1", "sigma2"], title)


def figure_27(frames: Frames) -> Figure:
    """Frobenius norms, losses, and the variance of all gradient norms; Figure 28 shows the same for another run."""
    from matplotlib.figure import Figure

    frames = without_bursts(frames)
    networks = networks_of(frames)
    count = len(networks) + 2
    rows = math.ceil(count / 2)
    beside = _legend_width(frames)
    figure = Figure(figsize=(8.6 * (1 + beside), 3.6 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 4, width_ratios=[1.0, beside] * 2)
    cells = [(row, column) for row in range(rows) for column in (0, 2)]
    for (row, column), network in zip(cells, networks, strict=False):
        axes = figure.add_subplot(grid[row, column])
        draw_layers(axes, frames["spectra"][frames["spectra"].network == network], chart_of("frobenius"))
        axes.set_title(f"{literal(network)} {axes.get_title()}", fontsize=10)
        _legend(axes, figure.add_subplot(grid[row, column + 1]), f"layers of {literal(network)}, by depth")
        _finish(axes, frames)
    titles = {"loss": "losses", "gradient_variance": "variance of all gradient norms"}
    for number, (prefix, title) in enumerate(titles.items(), len(networks)):
        row, column = cells[number]
        is_alone = number == count - 1 and column == 0  # the last of an odd number has the row for itself
        axes = figure.add_subplot(grid[row, column : 4 if is_alone else column + 2])
        _draw_scalars(axes, frames["scalars"], prefix)
        axes.set_title(title, fontsize=10, loc="left")
        if prefix == "gradient_variance" and axes.lines:
            logarithmic(axes)
        _finish(axes, frames)
    figure.suptitle("Frobenius norms, losses and gradients (the paper's Figure 27)", fontsize=11)
    return figure


def _draw_scalars(axes: Axes, scalars: pd.DataFrame, prefix: str) -> None:
    """The scalars called `prefix` or `prefix/...`: pale, with their running median over a fiftieth of the run on
    top; named above."""
    names = [name for name in scalars.name.cat.categories if name == prefix or name.startswith(f"{prefix}/")]
    for name, colour in zip(names, depth_colours(len(names)), strict=True):
        rows = scalars[scalars.name == name]
        width = max(1, len(rows) // 50)
        axes.plot(rows.step, rows.value, color=colour, lw=0.5, alpha=0.3)
        smooth = rows.value.rolling(width, center=True, min_periods=1).median()
        axes.plot(rows.step, smooth, color=colour, lw=1.1, label=literal(name.removeprefix(f"{prefix}/")))
    if names:
        axes.legend(
            fontsize=7, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=min(len(names), 4), frameon=False,
            borderaxespad=0.1, handlelength=1.5,
        )  # fmt: skip
    else:
        axes.text(0.5, 0.5, f"no {prefix} recorded", ha="center", va="center", transform=axes.transAxes, fontsize=8)
    axes.grid(alpha=0.25, lw=0.4)


def figure_29(frames: Frames) -> Figure:
    """Close-up of the sharpest jump of sigma_0 over all layers of the last network, if one stands out."""
    network = networks_of(frames)[-1]
    mine = frames["spectra"][frames["spectra"].network == network]
    step = sharpest_jump(mine)
    steps = np.unique(mine.step)
    if step is None:
        title = f"no jump stands out in {literal(network)}'s spectra (the paper's Figure 29)"
        return network_rows(frames, [network], ["sigma0", "sigma1"], title)
    place = int(np.searchsorted(steps, step))
    reach = max(10, len(steps) // 25)
    low, high = steps[max(0, place - reach // 2)], steps[min(len(steps) - 1, place + reach)]
    near = mine[(mine.step >= low) & (mine.step <= high)]
    title = f"the sharpest jump of {literal(network)}'s spectra, at step {step} (the paper's Figure 29)"
    figure = network_rows({**frames, "spectra": near}, [network], ["sigma0", "sigma1"], title)
    for axes in figure.axes[:2]:
        axes.axvline(step, color="0.7", lw=3, zorder=-1)
    return figure


def sharpest_jump(spectra: pd.DataFrame) -> int | None:
    """The step at which the highest jump of a layer's sigma0 rose; None where `spectra.detect.Spikes` finds none.

    A jump that is still going on where the record ends counts too.
    """
    table = spectra.pivot_table(index="step", columns="layer", values="sigma0", observed=True)
    detector, jumps = Spikes(), []
    for step, row in zip(table.index, table.to_numpy(), strict=True):
        if finding := detector.update(int(step), dict(zip(table.columns, map(float, row), strict=True))):
            jumps += finding.details["layers"].values()
    jumps += detector.unfinished().values()
    if not jumps:
        return None
    onset = max(jumps, key=lambda jump: float(jump["height"]))["onset"]
    return int(table.index[table.index > onset][0])


def figure_charts(frames: Frames) -> Figure:
    """Every chart of layers or parameters that a probe declares, if the record contains its quantity."""
    from spectra.monitor.probes import PROBES

    load_extensions()
    frames = without_bursts(frames)
    rows = []
    for name in ("spectra", "gradients"):
        table = frames[name].rename(columns={"parameter": "layer"})
        recorded = {quantity for quantity in table if table[quantity].notna().any()}
        charts = [chart for chart in charts_of(PROBES.values(), name) if chart.quantity in recorded]
        if charts:
            rows += [(network, table[table.network == network], charts) for network in networks_of(frames)]
    return _rows(frames, rows, "every quantity that was measured, layer by layer")


FIGURES: dict[str, Callable[[Frames], Figure]] = {
    "3": figure_3,
    "20": figure_20,
    "27": figure_27,
    "29": figure_29,
    "charts": figure_charts,
}
"""Every figure by its name: its number in the paper, or what it shows. The first line of each function is its help."""
