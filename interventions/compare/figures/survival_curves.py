"""Kaplan-Meier curves: one panel per entry, its control in grey, with intervals, censor marks and numbers at risk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from interventions.compare.collect import UNCHANGED, Comparison, Row
from interventions.compare.figures.effect_sizes import by_claim
from interventions.compare.lifetimes import observed_times, survival
from spectra.draw.charts import literal
from spectra.draw.look import BLUE, GREY, TEXT, grid_of, legend_above, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_survival(comparison: Comparison) -> Figure | None:
    """Survival of branches after the branching point; the unit is the base run. None without any run at risk."""
    return _draw(comparison, scratch=False)


def draw_scratch_survival(comparison: Comparison) -> Figure | None:
    """Survival of runs from scratch; the unit is the base run. None without any."""
    return _draw(comparison, scratch=True)


def _draw(comparison: Comparison, *, scratch: bool) -> Figure | None:
    known = {
        entry: rows
        for entry in [*UNCHANGED, *by_claim(comparison.entries())]
        if comparison.scored
        and (rows := [one for one in comparison.of(entry) if one.outcome.at_risk])
        and scratch == (rows[0].kind == "scratch")
    }
    control = next((entry for entry in UNCHANGED if entry in known), None)
    panels = [entry for entry in known if entry not in UNCHANGED] or list(known)
    if not panels:
        return None
    end = max(row.outcome.survived for rows in known.values() for row in rows)
    figure, cells = grid_of(len(panels), height=2.55, sharey=True)
    for axes, entry in zip(cells, panels, strict=True):
        lines = [entry] if control in (None, entry) else [control, entry]
        for line in lines:
            style = {"color": BLUE, "linewidth": 1.7} if line == entry else {"color": GREY, "linewidth": 1.3}
            words = "the entry" if line == entry and entry != control else "unchanged"
            _curve(axes, comparison, line, known[line], words, style | {"linestyle": "-" if line == entry else "--"})
        collapsed = sum(row.outcome.collapse is not None for row in known[entry])
        axes.set_title(f"{literal(entry)}\n{collapsed} of {len(known[entry])} collapsed", fontsize=8)
        axes.set(ylim=(-0.04, 1.06), xlim=(-0.03 * end, 1.03 * end or 1))
        plain(axes)
        _numbers_at_risk(axes, [observed_times(comparison.of(line)) for line in reversed(lines)])
    for axes in cells:
        if axes.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            axes.set_ylabel("share not collapsed", **TEXT)
    place = "beginning" if scratch else "branching point"
    figure.supxlabel(f"steps after the {place}; below: runs at risk, the entry's over those of the unchanged", **TEXT)
    legend_above(figure, cells)
    return figure


def _curve(axes: Axes, comparison: Comparison, entry: str, rows: list[Row], words: str, style: dict[str, Any]) -> None:
    curve = survival(comparison, entry)
    end = max(row.outcome.survived for row in rows)
    steps, shares = [0, *curve.quantiles.tolist(), end], [1.0, *curve.probabilities.tolist()]
    axes.step(steps, [*shares, shares[-1]], where="post", label=words, **style)
    if words == "the entry" or len(axes.lines) == 1:
        low, high = _interval(curve)
        axes.fill_between(
            steps, [*low, low[-1]], [*high, high[-1]], step="post", color=style["color"], alpha=0.16, linewidth=0,
            label=f"95 % interval ({words})",
        )  # fmt: skip
    censored = [time for time, happened in observed_times(comparison.of(entry)) if not happened]
    heights = [float(curve.evaluate(time)) for time in censored]
    if censored:
        axes.plot(
            censored, heights, "|", color=style["color"], markersize=8, markeredgewidth=1.5, label=f"censored ({words})"
        )


def _interval(curve: Any) -> tuple[list[float], list[float]]:
    """The pointwise 95 % interval by the log-log method at 0 and at each time; NaN where it is not defined: where no
    run, or every run, has collapsed."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # says where it is not defined
        found = curve.confidence_interval(0.95, method="log-log")
    return ([math.nan, *one.probabilities.tolist()] for one in (found.low, found.high))  # type: ignore[return-value]


def _numbers_at_risk(axes: Axes, lines: list[list[tuple[int, bool]]]) -> None:
    """Under the axis at each tick: how many runs were observed without a collapse up to there, the entry's first."""
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= high]
    for number, times in enumerate(lines):
        for tick in ticks:
            axes.annotate(
                str(sum(time >= tick for time, _ in times)), (tick, 0), xycoords=("data", "axes fraction"),
                xytext=(0, -19 - 9 * number), textcoords="offset points", ha="center", va="top", fontsize=7,
                color="0.4" if number else BLUE,
            )  # fmt: skip
    axes.set_xlim(low, high)
