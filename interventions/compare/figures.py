"""The figures of a comparison: parent and branches from the branching point on. Each figure is one function."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from interventions.compare.collect import UNCHANGED, Comparison, Row
from interventions.compare.lifetimes import survival
from interventions.compare.measures import d_loss
from interventions.compare.outcome import recorded_scores

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = Callable[[dict[str, Any], int], "tuple[list[int], list[float]] | None"]
MOST_ENTRIES = 20


def figures(comparison: Comparison) -> list[tuple[str, str]]:
    """(Title, picture as a data URI) of every figure that has data."""
    drawn = [(title, draw(comparison)) for title, draw in COMPARISON_FIGURES.items()]
    return [(title, _data_uri(figure)) for title, figure in drawn if figure is not None]


def draw_scores(comparison: Comparison) -> Figure | None:
    """FID of raw weights, one panel per base run."""
    return _panels(comparison, lambda frames, begin: _score(frames, begin, "fid"), "FID (raw weights)", log=True)


def draw_spread(comparison: Comparison) -> Figure | None:
    """Spread within a class, as a share of the real images'."""
    return _panels(comparison, lambda frames, begin: _score(frames, begin, "spread_share"), "spread, share of real")


def draw_d_loss(comparison: Comparison) -> Figure | None:
    """D's loss, a running mean over 25 steps (Appendix G.1: 0 to 3, and 300 when D is frozen)."""
    return _panels(comparison, _d_loss, "D's loss", log="where wide")


def draw_sigma(comparison: Comparison) -> Figure | None:
    """The largest sigma_0 of G's layers."""
    return _panels(comparison, lambda frames, begin: _sigma(frames, begin, "G"), "largest sigma_0 in G", log=True)


def draw_sigma_d(comparison: Comparison) -> Figure | None:
    """The largest sigma_0 of D's layers."""
    return _panels(comparison, lambda frames, begin: _sigma(frames, begin, "D"), "largest sigma_0 in D", log=True)


def draw_survival(comparison: Comparison) -> Figure | None:
    """Kaplan-Meier curves, steps after the branching point; the unit is the base run."""
    if not comparison.scored:
        return None
    figure, drawn = _figure(1), []
    axes = figure.subplots()
    entries = list(dict.fromkeys([*UNCHANGED, *comparison.entries()]))
    for number, entry in enumerate(entries):
        curve = survival(comparison, entry) if comparison.of(entry) else None
        if curve is None:
            continue
        rows = [row for row in comparison.of(entry) if row.outcome.at_risk]
        drawn += rows
        end = max(row.outcome.survived for row in rows)
        steps, shares = [0, *curve.quantiles.tolist(), end], [1.0, *curve.probabilities.tolist()]
        collapsed = sum(row.outcome.collapse is not None for row in rows)
        label = f"{entry} (n = {len(rows)}, {collapsed} collapsed)"  # curves at 1 cover each other
        axes.step(steps, [*shares, shares[-1]], where="post", label=label, **_style(entry, number - 1))
    if not drawn:
        return None
    scratch = {row.kind == "scratch" for row in drawn}
    words = "the branching point, or the beginning" if len(scratch) > 1 else "the branching point"
    xlabel = f"steps after {'the beginning' if scratch == {True} else words}"
    axes.set(xlabel=xlabel, ylabel="share not collapsed", ylim=(-0.03, 1.05))
    _legend(axes)
    return figure


COMPARISON_FIGURES: dict[str, Callable[[Comparison], Any]] = {
    "FID": draw_scores,
    "Spread within a class": draw_spread,
    "D's loss": draw_d_loss,
    "Largest sigma_0 in G": draw_sigma,
    "Largest sigma_0 in D": draw_sigma_d,
    "Survival": draw_survival,
}


def _logarithmic(axes: Axes) -> None:
    from matplotlib.ticker import LogFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1, 0.4)))


WIDE = 20.0


def _panels(comparison: Comparison, series: Series, label: str, *, log: bool | str = False) -> Figure | None:
    """One panel per base run: the parent in black, the other unchanged runs in grey, each change in a colour.

    `log`: True, or "where wide" for a symmetric logarithm where the values leave -WIDE to WIDE.
    """
    bases = list(dict.fromkeys(row.base for row in comparison.rows))
    figure, seen = _figure(len(bases)), False
    entries = comparison.entries()[:MOST_ENTRIES]
    for axes, base in zip(figure.subplots(1, len(bases), sharey=True, squeeze=False)[0], bases, strict=True):
        mine = [row for row in comparison.rows if row.base == base and (row.is_unchanged or row.arm in entries)]
        begin = max((row.outcome.begin for row in mine), default=0)
        parent = comparison.parents.get(base)
        if parent is not None and (found := series(comparison.frames(parent), max(begin - 500, 0) if begin else 0)):
            axes.plot(*found, color="black", linewidth=1, linestyle=":", label="parent")
        for row in sorted(mine, key=lambda row: not row.is_unchanged):
            found = series(comparison.frames(row.outcome.path), row.outcome.begin)
            if found:
                seen = True
                axes.plot(*found, label=_label(row), **_style_of(row, entries))
                _mark_broken(axes, found, _style_of(row, entries))
        if begin:
            axes.axvline(begin, color="black", linewidth=0.5)
        axes.set(title=base, xlabel="step")
    if not seen:
        return None
    limits = [abs(limit) for axes in figure.axes for limit in axes.dataLim.intervaly if math.isfinite(limit)]
    is_wide = max(limits, default=0.0) > WIDE
    for axes in figure.axes:
        if log is True:
            _logarithmic(axes)
        elif log and is_wide:
            axes.set_yscale("symlog")
    figure.axes[0].set_ylabel(f"{label} (symmetric log)" if log == "where wide" and is_wide else label)
    _legend(figure.axes[-1], figure.axes)
    return figure


def _score(frames: dict[str, Any], begin: int, name: str) -> tuple[list[int], list[float]] | None:
    scores = [one for one in recorded_scores(frames["events"]) if one["weights"] == "raw" and name in one]
    mine = [one for one in scores if one["step"] >= begin]
    return ([one["step"] for one in mine], [one[name] for one in mine]) if mine else None


def _d_loss(frames: dict[str, Any], begin: int) -> tuple[list[int], list[float]] | None:
    import numpy as np
    import pandas as pd

    loss = d_loss(frames["scalars"][frames["scalars"]["step"] > begin])
    # A step counts as a second, for a window of steps however many of them a thinned record holds.
    timed = loss.set_axis(pd.to_timedelta(loss.index, unit="s"))
    broken = (~np.isfinite(timed)).astype(float).rolling("25s").max() > 0  # a rolling mean would pass over NaN
    smooth = timed.rolling("25s").mean().mask(broken)
    return None if loss.empty else (loss.index.tolist(), smooth.tolist())


def _sigma(frames: dict[str, Any], begin: int, network: str) -> tuple[list[int], list[float]] | None:
    frame = frames["spectra"]
    mine = frame[(frame["network"] == network) & (frame["step"] > begin)]
    largest = mine.groupby("step")["sigma0"].agg(_largest)
    return None if largest.empty else (largest.index.tolist(), largest.tolist())


def _largest(values: pd.Series) -> float:
    """The largest value at one step; NaN if any layer's value is NaN."""
    return float(values.max(skipna=bool(values.isna().all())))


def _mark_broken(axes: Axes, found: tuple[list[int], list[float]], style: dict[str, Any]) -> None:
    """A cross at the top where a series stops being finite, because the end of a line is easily overlooked."""
    finite = [math.isfinite(value) for value in found[1]]
    broken = [step for step, before, now in zip(found[0], [True, *finite], finite, strict=False) if before and not now]
    if broken:
        marker = {"color": style["color"], "linestyle": "none", "marker": "x", "clip_on": False, "label": "not finite"}
        axes.plot(broken, [1.0] * len(broken), transform=axes.get_xaxis_transform(), **marker)


def _label(row: Row) -> str | None:
    if row.is_unchanged and row.seed is not None:
        return "unchanged, other seeds"
    return row.name if row.seed is None else f"_{row.name}"


def _style_of(row: Row, entries: list[str]) -> dict[str, Any]:
    if row.is_unchanged:
        return _style(row.name, 0)
    thin = {"linewidth": 0.7, "alpha": 0.6} if row.seed is not None else {}
    return _style(row.arm, entries.index(row.arm) + 1) | thin


def _style(entry: str, number: int) -> dict[str, Any]:
    if entry in ("control", "plain"):
        return {"color": "black", "linewidth": 1.8, "zorder": 5, "linestyle": "-" if entry == "control" else "--"}
    if entry.startswith(("control", "plain")):
        return {"color": "0.75", "linewidth": 1.2}
    from matplotlib import colormaps

    colours = colormaps["tab10"] if number <= 10 else colormaps["tab20b"]
    return {"color": colours((number - 1) % colours.N), "linewidth": 1.2}


def _figure(panels: int) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(max(7.0, 4.2 * panels + 2), 4.2), layout="constrained")


def _legend(axes: Axes, panels: Sequence[Axes] = ()) -> None:
    """Beside the last panel, for all of them: not every base run has every entry."""
    lines: dict[str, Artist] = {}
    for panel in panels or [axes]:
        for line, label in zip(*panel.get_legend_handles_labels(), strict=True):
            lines.setdefault(label, line)
    axes.legend(
        list(lines.values()), list(lines), loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False
    )


def _data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
