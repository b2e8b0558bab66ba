"""The paper's figures from any record (Section 4, Appendices F and G): layers coloured from red to violet with depth.

A figure is one function, listed in `FIGURES`. Nothing here touches pyplot or any other global state.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spectra.draw.charts import MARKED_EVENTS, Chart, charts_of, literal
from spectra.extensions import load_extensions
from spectra.record.damage import RecordDamage
from spectra.record.files import make_folder, replacing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    from spectra.record.frames import load

    load_extensions()
    unknown = [name for name in figures or () if name not in FIGURES]
    if unknown:
        raise ValueError(f"unknown figure {unknown[0]!r}; known: {', '.join(FIGURES)}")
    frames = load(run)
    frames["events"] = _with_changes(frames["events"], Path(run))
    if frames["spectra"].empty:
        raise ValueError(f"{run} has no spectra: it was trained without a monitor, or nothing has been measured yet")
    folder = Path(run) / "figures" if out is None else Path(out)
    make_folder(folder)
    written = []
    for name in figures or FIGURES:
        path = folder / f"figure-{name}.png"
        figure = FIGURES[name](frames)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
        written.append(path)
    return written


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
    """One network's layers as lines over the steps; a layer without such a number has no line.

    `colours`: one for each layer by depth; None: from red to violet.
    NaN and Inf break a line, and so does 0 on a log scale; the first step that is not finite is marked by a cross on
    the axis.
    """
    depths = spectra[["layer", "depth"]].drop_duplicates().sort_values("depth")
    for layer, colour in zip(depths.layer, colours or depth_colours(len(depths)), strict=True):
        rows = spectra[spectra.layer == layer]
        values = rows[chart.quantity].to_numpy()
        if np.isnan(values).all():
            continue
        label = literal(str(layer).split(".", 1)[-1])
        marker = "." if len(values) < 3 else None
        shown = np.where(values > 0, values, np.nan) if chart.log else np.where(np.isfinite(values), values, np.nan)
        axes.plot(rows.step, shown, color=colour, label=label, lw=0.9, marker=marker)
        measured = np.flatnonzero(~np.isfinite(values))
        if len(measured):
            place = (rows.step.to_numpy()[measured[0]], 0.02)
            axes.plot(*place, "x", color=colour, transform=axes.get_xaxis_transform(), clip_on=False)
    if chart.log:
        log_scale(axes)
    axes.set_title(chart.label or chart.title, fontsize=10)
    axes.grid(alpha=0.25, which="both", lw=0.4)


def log_scale(axes: Axes) -> None:
    """A log axis with readable labels even if it spans less than a decade."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    if high / low < 300:
        subs = [1, 3] if high / low >= 30 else [1, 1.5, 2, 3, 5, 7]
        subs = subs if high / low > 2 else np.arange(1, 10, 0.25).tolist()
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_minor_locator(LogLocator(subs=()))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")


def mark_events(axes: Axes, events: pd.DataFrame) -> None:
    """Vertical lines at alarms, and at resumes that changed the configuration; those of a step share their words."""
    load_extensions()
    words: dict[int, tuple[str, list[str]]] = {}
    low, high = axes.get_xlim()
    for event in events[~events.superseded.astype(bool)].itertuples():
        changed = event.event == "resumed" and event.details.get("changes")
        if (event.event in MARKED_EVENTS or changed) and low <= event.step <= high:
            colour = MARKED_EVENTS.get(event.event, "black")
            axes.axvline(event.step, color=colour, lw=0.9, ls="--", zorder=0)
            words.setdefault(event.step, (colour, []))[1].append(literal("changed" if changed else event.event))
    place = axes.get_xaxis_transform()
    for step, (colour, texts) in words.items():
        text = f" {', '.join(dict.fromkeys(texts))}"
        axes.text(step, 0.99, text, color=colour, fontsize=6, va="top", rotation=90, transform=place)
    axes.set_xlim(low, high)


def _finish(axes: Axes, frames: Frames) -> None:
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=7)
    mark_events(axes, frames["events"])


def _legend(axes: Axes, beside: Axes, title: str) -> None:
    """The layers of `axes`, in the empty axes beside it."""
    beside.axis("off")
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, math.ceil(len(labels) / 24))
    size = 7 if len(labels) <= 24 else 5
    beside.legend(
        handles, labels, title=title, ncols=columns, fontsize=size, title_fontsize=8, loc="upper left", frameon=False,
        borderaxespad=0.0, handlelength=1.5, labelspacing=0.3,
    )  # fmt: skip


def _legend_width(frames: Frames) -> float:
    """How wide the layers' legend is, in panels."""
    spectra = frames["spectra"]
    longest = max((len(str(layer)) for layer in spectra.layer.cat.categories), default=10)
    most = spectra[["network", "layer"]].drop_duplicates().network.value_counts().max()
    return (0.12 + 0.013 * max(longest, 20)) * (1 if most <= 24 else 0.8 * math.ceil(most / 24))


def network_rows(frames: Frames, networks: Sequence[str], charts: Sequence[Chart | str], title: str = "") -> Figure:
    """A figure with a row for each network, a panel for each chart (or quantity), and the layers' legend at the right.

    The quantities are columns of `frames["spectra"]`.
    """
    spectra = frames["spectra"]
    known = [chart if isinstance(chart, Chart) else chart_of(chart) for chart in charts]
    return _rows(frames, [(network, spectra[spectra.network == network], known) for network in networks], title)


def _rows(frames: Frames, rows: Sequence[tuple[str, pd.DataFrame, list[Chart]]], title: str) -> Figure:
    """As `network_rows`, of (network, its rows of a frame, charts)."""
    from matplotlib.figure import Figure

    columns = max(len(charts) for _, _, charts in rows)
    beside = _legend_width(frames)
    figure = Figure(figsize=(4.3 * (columns + beside), 3.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns + 1, squeeze=False, width_ratios=[1.0] * columns + [beside])
    for axes_of_row, (network, mine, charts) in zip(grid, rows, strict=True):
        for axes in axes_of_row[len(charts) : -1]:
            axes.axis("off")
        for axes, chart in zip(axes_of_row, charts, strict=False):
            draw_layers(axes, mine, chart)
            axes.set_title(f"{literal(network)} {axes.get_title()}", fontsize=10)
            _finish(axes, frames)
        _legend(axes_of_row[0], axes_of_row[-1], f"layers of {literal(network)}, by depth")
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def networks_of(frames: Frames) -> list[str]:
    """The networks of a record in the order of first appearance."""
    return [str(name) for name in dict.fromkeys(frames["spectra"].network)]


def figure_3(frames: Frames) -> Figure:
    """sigma_0 of every layer of each network, before Spectral Normalization."""
    return network_rows(frames, networks_of(frames), ["sigma0"], "First singular values (Figure 3)")


def figure_20(frames: Frames) -> Figure:
    """sigma_0, sigma_1, sigma_2 of every layer of each network; Figures 21 to 26 show the same for other runs."""
    return network_rows(frames, networks_of(frames), ["sigma0", "sigma1", "sigma2"], "Singular values (Figure 20)")


def figure_27(frames: Frames) -> Figure:
    """Frobenius norms, losses, and the variance of all gradient norms; Figure 28 shows the same for another run."""
    from matplotlib.figure import Figure

    networks = networks_of(frames)
    rows = math.ceil(len(networks) / 2) + 1
    beside = _legend_width(frames)
    figure = Figure(figsize=(8.6 * (1 + beside), 3.6 * rows), layout="constrained")
    grid = figure.subplots(rows, 4, squeeze=False, width_ratios=[1.0, beside] * 2)
    for axes in grid.flat:
        axes.axis("off")
    pairs = grid.reshape(-1, 2)  # a panel and its legend
    for (axes, legend), network in zip(pairs, networks, strict=False):
        axes.axis("on")
        draw_layers(axes, frames["spectra"][frames["spectra"].network == network], chart_of("frobenius"))
        axes.set_title(f"{literal(network)} {axes.get_title()}", fontsize=10)
        _legend(axes, legend, f"layers of {literal(network)}, by depth")
    titles = {"loss": "losses", "gradient_variance": "variance of all gradient norms"}
    for (axes, _), (prefix, title) in zip(pairs[-2:], titles.items(), strict=True):
        axes.axis("on")
        _draw_scalars(axes, frames["scalars"], prefix)
        axes.set_title(title, fontsize=10)
    if pairs[-1][0].lines:
        log_scale(pairs[-1][0])
    for axes, _ in [*pairs[: len(networks)], *pairs[-2:]]:
        _finish(axes, frames)
    figure.suptitle("Further statistics (Figure 27)", fontsize=11)
    return figure


def _draw_scalars(axes: Axes, scalars: pd.DataFrame, prefix: str) -> None:
    """The scalars called `prefix` or `prefix/...`: pale, with their running median over a fiftieth of the run on
    top."""
    names = [name for name in scalars.name.cat.categories if name == prefix or name.startswith(f"{prefix}/")]
    for name, colour in zip(names, depth_colours(len(names)), strict=True):
        rows = scalars[scalars.name == name]
        width = max(1, len(rows) // 50)
        axes.plot(rows.step, rows.value, color=colour, lw=0.5, alpha=0.3)
        smooth = rows.value.rolling(width, center=True, min_periods=1).median()
        axes.plot(rows.step, smooth, color=colour, lw=1.1, label=literal(name.removeprefix(f"{prefix}/")))
    if names:
        axes.legend(fontsize=7, loc="best", framealpha=0.7)
    else:
        axes.text(0.5, 0.5, f"no {prefix} recorded", ha="center", va="center", transform=axes.transAxes, fontsize=8)
    axes.grid(alpha=0.25, lw=0.4)


def figure_29(frames: Frames) -> Figure:
    """Close-up of the sharpest jump of sigma_0 over all layers of the last network."""
    network = networks_of(frames)[-1]
    mine = frames["spectra"][frames["spectra"].network == network]
    step = sharpest_jump(mine)
    steps = np.unique(mine.step)
    if step is None:
        title = f"{literal(network)} has no two measurements whose jump could be told (Figure 29)"
        return network_rows(frames, [network], ["sigma0", "sigma1"], title)
    place = int(np.searchsorted(steps, step))
    reach = max(10, len(steps) // 25)
    low, high = steps[max(0, place - reach // 2)], steps[min(len(steps) - 1, place + reach)]
    near = mine[(mine.step >= low) & (mine.step <= high)]
    title = f"The sharpest jump of {literal(network)}'s spectra, at step {step} (Figure 29)"
    return network_rows({**frames, "spectra": near}, [network], ["sigma0", "sigma1"], title)


def sharpest_jump(spectra: pd.DataFrame) -> int | None:
    """The step at which some layer's sigma0 has grown most since the last measurement, as a ratio.

    None where no two measurements can be compared. The first tenth of the run, where everything grows, is left out.
    """
    table = spectra.pivot_table(index="step", columns="layer", values="sigma0", observed=True)
    if table.empty:  # no sigma0 is a number
        return None
    with np.errstate(all="ignore"):
        growth = np.log(table.where(np.isfinite(table) & (table > 0))).diff()
    late = growth[growth.index > table.index[0] + 0.1 * (table.index[-1] - table.index[0])]
    best = late.max(axis=1).dropna()
    return None if best.empty else int(best.idxmax())


def figure_charts(frames: Frames) -> Figure:
    """Every chart of layers or parameters that a probe declares, if the record contains its quantity."""
    from spectra.monitor.probes import PROBES

    load_extensions()
    rows = []
    for name in ("spectra", "gradients"):
        table = frames[name].rename(columns={"parameter": "layer"})
        recorded = {quantity for quantity in table if table[quantity].notna().any()}
        charts = [chart for chart in charts_of(PROBES.values(), name) if chart.quantity in recorded]
        if charts:
            rows += [(network, table[table.network == network], charts) for network in networks_of(frames)]
    return _rows(frames, rows, "The probes' charts")


FIGURES: dict[str, Callable[[Frames], Figure]] = {
    "3": figure_3,
    "20": figure_20,
    "27": figure_27,
    "29": figure_29,
    "charts": figure_charts,
}
"""Every figure by its name: its number in the paper, or what it shows. The first line of each function is its help."""
