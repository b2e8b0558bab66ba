"""Figures 20 and 27 of the paper for an unchanged run and for some of the entries, side by side on the same scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interventions.compare.collect import Comparison, Row
from interventions.compare.figures.marks import mark_onset
from spectra.draw.charts import literal
from spectra.draw.look import BLUE, GREEN, ORANGE, PURPLE, SKY, TEXT, new_figure, plain  # fmt: skip

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHOSEN = 3
"""Entries beside the unchanged run: the first to collapse, one in the middle, and the longest survivor."""
QUANTITIES = (("sigma0", r"$\sigma_0$"), ("sigma1", r"$\sigma_1$"), ("sigma2", r"$\sigma_2$"))
SCALARS = (("loss", "losses"), ("gradient_variance", "variance of all gradient norms"))
STYLES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PURPLE, ":"), (SKY, "-"))


@dataclass(frozen=True)
class Panel:
    """One row of panels: its name, whether its scale is logarithmic, whether its lines are named; what reads the rows
    of a frame after a step (None without any), and what draws them."""

    name: str
    log: bool
    has_legend: bool
    read: Callable[[dict[str, Any], int], pd.DataFrame | None]
    draw: Callable[[Axes, pd.DataFrame], None]


def draw_figure_20(comparison: Comparison) -> Figure | None:
    """sigma_0, sigma_1 and sigma_2 of every layer, of branches (Figures 20 to 26); None without spectra."""
    return _draw(comparison, chosen_runs(comparison, scratch=False), _singular_values())


def draw_figure_27(comparison: Comparison) -> Figure | None:
    """Frobenius norms, losses and the variance of gradient norms, of branches (Figures 27, 28); None without any."""
    return _draw(comparison, chosen_runs(comparison, scratch=False), _statistics())


def draw_scratch_figure_20(comparison: Comparison) -> Figure | None:
    """As `draw_figure_20`, of runs from scratch."""
    return _draw(comparison, chosen_runs(comparison, scratch=True), _singular_values())


def draw_scratch_figure_27(comparison: Comparison) -> Figure | None:
    """As `draw_figure_27`, of runs from scratch."""
    return _draw(comparison, chosen_runs(comparison, scratch=True), _statistics())


def chosen_runs(comparison: Comparison, *, scratch: bool) -> list[Row]:
    """The unchanged run of one base run, and up to `CHOSEN` changed ones of it that span what happened.

    The base run is the one with most entries, of several the first whose unchanged run collapsed.
    """
    found: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if (row.kind == "scratch") is scratch and row.seed is None and row.copy == 1 and not row.is_alone:
            found.setdefault(row.base, []).append(row)
    if not found:
        return []

    def telling(rows: list[Row]) -> tuple[int, bool]:
        return len(rows), any(row.is_unchanged and row.outcome.collapse is not None for row in rows)

    rows = max(found.values(), key=telling)
    changed = sorted((row for row in rows if not row.is_unchanged), key=lambda row: row.outcome.survived)
    places = {0, len(changed) // 2, len(changed) - 1} if len(changed) > CHOSEN else range(len(changed))
    return [*(row for row in rows if row.is_unchanged), *(changed[place] for place in sorted(places))]


def _draw(comparison: Comparison, rows: Sequence[Row], panels: Sequence[Panel]) -> Figure | None:
    """A row for each panel that has data in any of the runs, a column for each run."""
    read = [[panel.read(comparison.frames(row.outcome.path), row.outcome.begin) for row in rows] for panel in panels]
    shown = [(panel, found) for panel, found in zip(panels, read, strict=True) if any(one is not None for one in found)]
    if not shown:
        return None
    figure = new_figure(1.6 * len(shown) + 0.6)
    cells = figure.subplots(len(shown), len(rows), squeeze=False, sharex=True, sharey="row")
    for line, (panel, found) in zip(cells, shown, strict=True):
        for axes, frame, row in zip(line, found, rows, strict=True):
            if frame is not None:
                panel.draw(axes, frame)
            axes.set_title("")
            plain(axes)
            if row.outcome.collapse is not None and not row.outcome.collapsed_before:
                mark_onset(axes, row.outcome.collapse, text=False)
        _finish(line, panel)
    for axes, row in zip(cells[0], rows, strict=True):
        collapse = row.outcome.collapse
        axes.set_title(literal(row.name) + ("" if collapse is None else f"\ncollapse at {collapse:,}"), fontsize=8.5)
    figure.supxlabel(f"step of {literal(rows[0].base)}", **TEXT)
    return figure


def _finish(line: Sequence[Axes], panel: Panel) -> None:
    from spectra.draw.look import logarithmic

    if panel.log:
        logarithmic(line[0])
    line[0].set_ylabel(panel.name, **TEXT)
    with_names = next((axes for axes in line if any(axes.get_legend_handles_labels())), None)
    if panel.has_legend and with_names is not None:
        with_names.legend(fontsize=6.5, loc="best", framealpha=0.7, handlelength=2.2)


def _singular_values() -> list[Panel]:
    pairs = [(network, *one) for network in ("G", "D") for one in QUANTITIES]
    return [_layers(network, quantity, f"{network} {label}") for network, quantity, label in pairs]


def _statistics() -> list[Panel]:
    norms = [_layers(network, "frobenius", f"{network} Frobenius norm") for network in ("G", "D")]
    return [*norms, *(_scalars(prefix, words) for prefix, words in SCALARS)]


def _layers(network: str, quantity: str, name: str) -> Panel:
    """Every layer of a network, from dark (the first layer) to light (the last)."""

    def read(frames: dict[str, Any], begin: int) -> pd.DataFrame | None:
        frame: pd.DataFrame = frames["spectra"]
        mine = frame[(frame["network"] == network) & (frame["step"] > begin)]
        return mine if mine[quantity].notna().any() else None

    def draw(axes: Axes, mine: pd.DataFrame) -> None:
        from matplotlib import colormaps

        from spectra.draw.charts import Chart
        from spectra.draw.figures import draw_layers

        count = mine["layer"].nunique()
        colours = [colormaps["viridis"](0.92 * number / max(count - 1, 1)) for number in range(count)]
        draw_layers(axes, mine, Chart(quantity, quantity, log=False), colours)

    return Panel(name, True, False, read, draw)


def _scalars(prefix: str, name: str) -> Panel:
    """The scalars called PREFIX/..., as running medians."""

    def read(frames: dict[str, Any], begin: int) -> pd.DataFrame | None:
        scalars: pd.DataFrame = frames["scalars"]
        mine = scalars[scalars["name"].astype(str).str.startswith(f"{prefix}/") & (scalars["step"] > begin)]
        return None if mine.empty else mine

    def draw(axes: Axes, mine: pd.DataFrame) -> None:
        for number, (one, values) in enumerate(mine.groupby(mine["name"].astype(str))):
            colour, dashes = STYLES[number % len(STYLES)]
            label = literal(str(one).removeprefix(f"{prefix}/"))
            axes.plot(values["step"], _smooth(values), color=colour, linestyle=dashes, linewidth=1.0, label=label)

    return Panel(name, prefix != "loss", True, read, draw)


def _smooth(values: pd.DataFrame) -> pd.Series:
    """The running median over a thirtieth of the steps, however many of them are recorded."""
    import pandas as pd

    width = max(1, int(values["step"].max() - values["step"].min()) // 30)
    timed = values["value"].set_axis(pd.to_timedelta(values["step"], unit="s"))  # a step counts as a second
    return timed.rolling(f"{width}s", center=True).median().set_axis(values.index)
