"""The effect of every entry beside the variation between seeds, as in a forest plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from interventions.compare.collect import Comparison, Row
from interventions.compare.statistics import paired
from spectra.draw.charts import literal
from spectra.draw.look import BAND, BLUE, ORANGE, TEXT, legend_above, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FINAL_FID = "final_fid_raw_median5"
ROW = 0.3
"""Inches an entry."""
LIMITS = {"": "both collapsed", ">": "at least: only the control collapsed", "<": "at most: only the entry collapsed"}
RANGE = "unchanged, other seeds: their range"
MARKERS = {"": "o", ">": ">", "<": "<", "=": "D"}


@dataclass
class Effects:
    """One entry's runs, each against the unchanged run of its base run with the same noise.

    Attributes:
        steps: (difference of the steps survived, what it is): "" known; ">" at least, "<" at most; "=" neither
            collapsed, so that nothing is known.
        ratios: FID (median of 5) over that of the control; Inf where it is not finite.
    """

    entry: str
    steps: list[tuple[float, str]] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)


def draw_effects(comparison: Comparison) -> Figure | None:
    """Steps survived beyond the control, and FID relative to it: a mark for each base run, the mean with its 95 %
    interval where it is known, and the range of unchanged runs under other seeds as a band. None without any."""
    blocks = []
    for scratch in (False, True):
        entries = [one for one in by_claim(comparison.entries()) if _is_scratch(comparison, one) is scratch]
        found = [one for entry in entries if (one := effects_of(comparison, entry)).steps or one.ratios]
        if found:
            blocks.append((scratch, found))
    if not blocks:
        return None
    rows = sum(len(found) for _, found in blocks)
    figure = new_figure(ROW * rows + 0.75 * len(blocks) + 0.6)
    heights = [len(found) + 1.2 for _, found in blocks]
    cells = figure.subplots(len(blocks), 2, squeeze=False, height_ratios=heights, width_ratios=[1.15, 1.0])
    for (left, right), (scratch, found) in zip(cells, blocks, strict=True):
        others = seed_effects(comparison, "plain" if scratch else "control")
        _draw_steps(left, found, others)
        _draw_ratios(right, found, others)
        words = "runs from scratch" if scratch else "branches"
        left.set_title(f"{words}: steps survived, relative to the control", fontsize=8.5, loc="left")
        right.set_title("FID (median of 5) over the control's", fontsize=8.5, loc="left")
    legend_above(figure, list(cells.ravel()), columns=3)
    return figure


def claims_of_entries() -> dict[str, str]:
    """Entry -> the first claim that needs it, in the claims' order; a letter of the claim is left out."""
    from interventions.compare.claims.read import read_claims

    found: dict[str, str] = {}
    for claim in read_claims():
        for entry in claim.entries:
            found.setdefault(entry, claim.claim.rstrip("abcdefghijklmnopqrstuvwxyz"))
    return found


def by_claim(entries: Sequence[str]) -> list[str]:
    """The entries in the order of the claims; those of no claim last, in their own order."""
    order = list(claims_of_entries())
    return sorted(entries, key=lambda entry: order.index(entry) if entry in order else len(order))


def _is_scratch(comparison: Comparison, entry: str) -> bool:
    return comparison.of(entry)[0].kind == "scratch"


def effects_of(comparison: Comparison, entry: str) -> Effects:
    """An entry's effects, one per base run."""
    pairs = [(row, control) for row in comparison.of(entry) if (control := comparison.control_of(row)) is not None]
    return _effects(entry, [(row, control) for row, control in pairs if control is not row])


def seed_effects(comparison: Comparison, entry: str) -> Effects:
    """The same of unchanged runs under other seeds, against the unchanged run with the base run's own noise."""
    own = {row.base: row for row in comparison.rows if row.arm == entry and row.seed is None}
    others = [row for row in comparison.rows if row.arm == entry and row.seed is not None and row.base in own]
    return _effects(entry, [(row, own[row.base]) for row in others])


def _effects(entry: str, pairs: Sequence[tuple[Row, Row]]) -> Effects:
    found = Effects(entry)
    for row, control in pairs:
        mine, other = row.outcome, control.outcome
        if mine.at_risk and other.at_risk:
            kinds = {(True, True): "", (False, True): ">", (True, False): "<", (False, False): "="}
            kind = kinds[mine.collapse is not None, other.collapse is not None]
            found.steps.append((0.0 if kind == "=" else float(mine.survived - other.survived), kind))
        values = [one.numbers.get(FINAL_FID) if one.done else None for one in (mine, other)]
        if values[0] is not None and values[1] is not None and values[1] > 0 and math.isfinite(values[1]):
            found.ratios.append(values[0] / values[1] if math.isfinite(values[0]) else math.inf)
    return found


def _rows(axes: Axes, found: Sequence[Effects]) -> None:
    claims = claims_of_entries()
    labels = [f"{one.entry}  ({claims[one.entry]})" if one.entry in claims else one.entry for one in found]
    axes.set_yticks(range(len(found)), list(map(literal, labels)), fontsize=8)
    axes.set_ylim(len(found) - 0.4, -0.6)
    plain(axes)
    axes.grid(axis="y", alpha=0.12, linewidth=3)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _spread_out(count: int) -> list[float]:
    """Small shifts up and down, so that equal marks do not hide each other."""
    return [0.0] if count == 1 else [0.36 * (number / (count - 1) - 0.5) for number in range(count)]


def _draw_steps(axes: Axes, found: Sequence[Effects], others: Effects) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    if known := [value for value, kind in others.steps if kind != "="]:
        axes.axvspan(min([*known, 0]), max([*known, 0]), color=BAND, zorder=0, label=RANGE)
    for place, one in enumerate(found):
        for (value, kind), shift in zip(one.steps, _spread_out(len(one.steps)), strict=True):
            filled: dict[str, Any] = {"markerfacecolor": "white" if kind else BLUE, "markeredgecolor": BLUE}
            axes.plot(
                value, place + shift, MARKERS[kind], linestyle="none", zorder=3,
                markersize=6 if kind in ("<", ">") else 4.5,
                label=LIMITS.get(kind, "neither collapsed: not known"), **filled,
            )  # fmt: skip
        if len(one.steps) > 1 and all(kind == "" for _, kind in one.steps):
            _draw_mean(axes, place, paired([value for value, _ in one.steps]), math.inf)
    _rows(axes, found)
    axes.set_xlabel("steps (right: it survived longer)", **TEXT)


def _draw_ratios(axes: Axes, found: Sequence[Effects], others: Effects) -> None:
    axes.axvline(1, color="black", linewidth=0.8)
    band = [value for value in others.ratios if math.isfinite(value)]
    if band:
        axes.axvspan(min([*band, 1]), max([*band, 1]), color=BAND, zorder=0, label=RANGE)
    for place, one in enumerate(found):
        for value, shift in zip(one.ratios, _spread_out(len(one.ratios)), strict=True):
            if math.isfinite(value):
                axes.plot(value, place + shift, "o", color=BLUE, markersize=4.5, zorder=3, label="_")
            else:
                axes.plot(
                    1.0, place + shift, "X", color=ORANGE, markersize=6, clip_on=False, label="not finite", zorder=4,
                    transform=axes.get_yaxis_transform(),
                )  # fmt: skip
        if len(one.ratios) > 1 and all(value > 0 and math.isfinite(value) for value in one.ratios):
            logs = paired([math.log(value) for value in one.ratios])
            _draw_mean(axes, place, {name: math.exp(logs[name]) for name in ("mean", "low", "high")}, 50.0)
    axes.set_xscale("log")
    _rows(axes, found)
    axes.set_yticklabels([])
    _ratio_ticks(axes)
    axes.set_xlabel("ratio (right: worse)", **TEXT)


def _draw_mean(axes: Axes, place: int, facts: dict[str, float], widest: float) -> None:
    """The mean as a short upright line, its interval as a bar; one wider than `widest` tells nothing."""
    known = all(math.isfinite(facts[name]) for name in ("low", "high"))
    if known and facts["high"] - facts["low"] < widest:
        axes.plot([facts["low"], facts["high"]], [place] * 2, color="black", linewidth=1.0, zorder=2,
                  label="mean and 95 % interval")  # fmt: skip
    axes.plot(facts["mean"], place, "|", color="black", markersize=11, markeredgewidth=1.6, zorder=2, label="_")


def _ratio_ticks(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if high / low > 300 else (1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
