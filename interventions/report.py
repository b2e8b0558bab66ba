"""What a comparison says: on the terminal, as CSV, and as one page with tables and figures to send to somebody."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interventions.compare import Comparison, table
from interventions.statistics import effects, luck, survival_tests

if TYPE_CHECKING:
    import pandas as pd

NO_SCORES = "no scores recorded: give --eval.every (100, for example); collapse is then detected from the scores."
SHOWN = {
    "collapse": "collapse at",
    "delay": "delay",
    "best_fid_raw": "best FID",
    "final_fid_raw": "final FID",
    "final_fid_ema": "final FID (average)",
    "final_spread_raw": "spread",
    "D_loss_start": "D loss start",
    "D_loss_end": "end",
    "D_loss_max": "max",
    "sigma0_growth": "sigma_0 growth",
    "growth_layer": "of layer",
    "D_spikes_per_1000": "D spikes / 1000",
    "D/accuracy/train": "D right: train",
    "D/accuracy/val": "val",
    "D/accuracy/fake": "fake",
}
"""Columns of the table of runs, and their heads."""
HEADS = {"lucks": "in lucks", "p": "p (sign)", "low": "95 % low", "high": "high", "n": "n"}


def print_report(comparison: Comparison) -> None:
    """The whole comparison on the terminal, luck first."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width of its own: nothing is cut off
        console = Console(width=240)
    if not comparison.scored:
        console.print(NO_SCORES)
    for title, words, frame in sections(comparison):
        if frame is not None and len(frame):
            console.print(_rich_table(title, frame))
        elif frame is not None:
            console.print(f"{title}: nothing to show")
        if words:
            console.print(words)
    for line in comparison.notes:
        console.print(f"note: {line}", markup=False)


def write_report(comparison: Comparison, folder: str | Path) -> list[Path]:
    """Write compare.csv, luck.csv, effects.csv and report.html into `folder`; the files written."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    frames = {"compare": table(comparison), "luck": luck(comparison), "effects": effects(comparison)}
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
        written.append(folder / f"{name}.csv")
    page = folder / "report.html"
    page.write_text(_page(comparison), encoding="utf-8")
    return [*written, page]


def sections(comparison: Comparison) -> list[tuple[str, str, pd.DataFrame | None]]:
    """(Title, words below, table) of each part of the report, luck first."""
    found: list[tuple[str, str, pd.DataFrame | None]] = []
    bases = len({row.base for row in comparison.rows})
    spread = luck(comparison)
    found.append(
        (
            "Luck: unchanged continuations of one parent under other seeds",
            "Nothing below means more than its size beside this. n of of_n: those in which the measure is known (a "
            "collapse: those that collapsed; all else: those that have come to their end).",
            _for_show(spread),
        )
    )
    found.append(("Runs", _censoring(comparison), _runs(comparison)))
    found.append(
        (
            f"Changes against the unchanged control, paired by base run (n is the number of base runs, {bases} in all)",
            "mean: of entry minus control; an interval and p are about base runs, not about steps. p is the exact sign "
            "test's: with n base runs it cannot be below 2/2^n. in lucks: the mean in standard deviations among "
            "unchanged continuations. A changed run under another seed is held against the unchanged one under that "
            "seed, and the seeds of a base run are averaged first. delay: where one of the two collapsed and the other "
            "outlived that step, its sign alone counts; there is a mean only where both collapsed in every pair.",
            _for_show(effects(comparison)),
        )
    )
    if comparison.scored:
        words = (
            "Kaplan-Meier with base runs as the unit; collapse by spectra.detect, runs without one are censored. "
            "Numbers that became NaN or Inf for good are a collapse; runs that had collapsed before the branching "
            "point are left out."
        )
        found.append(
            (
                "Survival: log-rank against the control",
                words,
                _for_show(survival_tests(comparison).rename(columns={"p": "p (log-rank)"})),
            )
        )
    return found


def _censoring(comparison: Comparison) -> str:
    if not comparison.scored:
        return NO_SCORES
    return (
        "'none by STEP': no collapse as far as it was trained (censored). FID: running medians over five evaluations."
    )


def _runs(comparison: Comparison) -> pd.DataFrame:
    frame = table(comparison)
    shown = frame[["base", "entry"]].copy()
    for name, head in SHOWN.items():
        if name == "collapse":
            shown[head] = [_collapse(row) for _, row in frame.iterrows()]
        elif name == "growth_layer" or (name in frame and frame[name].notna().any()):
            shown[head] = frame[name].map(_short)
    return shown


def _collapse(row: Any) -> str:
    if row["censored"] is None or (isinstance(row["censored"], float) and math.isnan(row["censored"])):
        return "no scores"
    if row["censored"]:
        return f"none by {row['last']}"
    before = " (before the branch)" if row["collapsed_before"] else ""
    why = " (not finite)" if row["rule"] == "non_finite" else ""
    return f"{int(row['collapse'])}{why}{before}"


def _for_show(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({HEADS.get(name, name): frame[name].map(_short) for name in frame})


def _short(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _rich_table(title: str, frame: pd.DataFrame) -> Any:
    from rich.table import Table

    shown = Table(title=title, title_justify="left")
    for name in frame:
        shown.add_column(
            str(name), justify="left" if name in ("base", "entry", "of", "measure", "of layer") else "right"
        )
    for row in frame.itertuples(index=False):
        shown.add_row(*map(str, row))
    return shown


def _page(comparison: Comparison) -> str:
    from interventions.figures import figures

    parts = [f"<h1>{html.escape(comparison.title)}</h1>"]
    if not comparison.scored:
        parts.append(f"<p class=warn>{html.escape(NO_SCORES)}</p>")
    for title, words, frame in sections(comparison):
        parts.append(f"<h2>{html.escape(title)}</h2>")
        if frame is not None and len(frame):
            parts.append(f"<div class=wide>{frame.to_html(index=False, border=0, escape=True)}</div>")
        parts.append(f"<p>{html.escape(words)}</p>")
    parts.append("<h2>Figures</h2>")
    for title, picture in figures(comparison):
        parts.append(f"<h3>{html.escape(title)}</h3><img alt='{html.escape(title)}' src='{picture}'>")
    if comparison.notes:
        parts.append("<h2>Notes</h2><ul>" + "".join(f"<li>{html.escape(n)}</li>" for n in comparison.notes) + "</ul>")
    settings = _settings(comparison)
    if settings:
        parts.append(f"<h2>Parents</h2>{settings}")
    body = "\n".join(parts)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(comparison.title)}</title>{STYLE}{body}"
    )


def _settings(comparison: Comparison) -> str:
    rows = {row.base: row.outcome.begin for row in comparison.rows if row.kind != "scratch"}
    items = [f"<li>{html.escape(base)}: branched at step {step}</li>" for base, step in rows.items()]
    return f"<ul>{''.join(items)}</ul>" if items else ""


STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: 3px 10px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left }
.wide { overflow-x: auto } img { max-width: 100% } .warn { background: #fff3cd; padding: .5em 1em }
</style>"""
