"""Several runs in one figure: a panel for each loss and for the layers that grew most, a line for each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra.draw.bursts import without_bursts
from spectra.draw.charts import literal
from spectra.draw.look import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    grid_of,
    legend_above,
    logarithmic,
    mark_broken,
    plain,
)  # fmt: skip

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Runs = Mapping[str, Mapping[str, pd.DataFrame]]

RUN_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, "black")
DASHES = ("-", "--", ":", "-.")
_MOST_SCALARS, _MOST_LAYERS = 8, 12


def overlay_runs(runs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Draw several runs as one PNG file, `figure-overlay.png`.

    Args:
        runs: the run directories, two or more.
        out: the folder to write to; None: the current one.

    Returns:
        The file written.

    Raises:
        ValueError: a run is given twice, or no two of them recorded anything of the same name.
        FileNotFoundError: one is not a run directory.
    """
    from spectra.record.files import make_folder, replacing
    from spectra.record.frames import load

    names = run_names(runs)
    figure = draw_overlay({name: without_bursts(load(run)) for name, run in zip(names, runs, strict=True)})
    folder = Path("." if out is None else out)
    make_folder(folder)
    path = folder / "figure-overlay.png"
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path


def run_names(runs: Sequence[str | Path]) -> list[str]:
    """The shortest ends of the runs' paths that tell them apart. Raises `ValueError` for a run that is given twice."""
    parts = [Path(run).resolve().parts for run in runs]
    twice = next((run for i, run in enumerate(runs) if parts[i] in parts[:i]), None)
    if twice is not None:
        raise ValueError(f"{twice} is given twice: give each run once")
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [str(Path(run)) for run in runs]


def draw_overlay(runs: Runs) -> Figure:
    """The figure of runs by name, from the frames of `spectra.load`: losses, the largest sigma_0 of each network, then
    sigma_0 of the layers that grew most in any run. Raises `ValueError` where there is nothing that two runs share."""
    scalars = _shared(runs, "scalars", "name")
    losses = _losses_first(scalars)[:_MOST_SCALARS]
    networks = _shared(runs, "spectra", "network")
    layers = _grown_most(_shared(runs, "spectra", "layer"), runs)[:_MOST_LAYERS]
    panels = len(losses) + len(networks) + len(layers)
    if not panels:
        raise ValueError("these runs share no scalar and no layer: there is nothing to lay over one another")
    figure, axes = grid_of(panels, height=2.1)
    styles = _styles(list(runs))
    waiting = iter(axes)
    for name in losses:
        _panel(next(waiting), name, runs, styles, lambda f, name=name: _series(f["scalars"], "name", name, "value"))
    for name in networks:
        title = f"{name}: largest sigma_0"
        _panel(next(waiting), title, runs, styles, lambda f, name=name: _largest(f["spectra"], name), log=True)
    for name in layers:
        title = f"{name}: sigma_0"
        _panel(
            next(waiting), title, runs, styles,
            lambda f, name=name: _series(f["spectra"], "layer", name, "sigma0"), log=True,
        )  # fmt: skip
    longest = max(map(len, runs))
    legend_above(figure, axes, columns=max(1, min(5, 110 // (longest + 6))))
    return figure


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A colour for each run; where there are more runs than colours, also a line style."""
    pairs = [(colour, dash) for dash in DASHES for colour in RUN_COLOURS]
    return {
        name: {"color": colour, "linestyle": dash, "label": literal(name)}
        for name, (colour, dash) in zip(names, cycle(pairs), strict=False)
    }


def _shared(runs: Runs, frame: str, column: str) -> list[str]:
    """What is recorded in two runs or more, in the order of first appearance."""
    counts: dict[str, int] = {}
    for frames in runs.values():
        for name in dict.fromkeys(frames[frame][column].astype(str)):
            counts[name] = counts.get(name, 0) + 1
    return [name for name, count in counts.items() if count > 1]


def _losses_first(names: Sequence[str]) -> list[str]:
    import re

    from spectra.detect.losses import LOSS_NAME

    losses = [name for name in names if re.fullmatch(LOSS_NAME, name)]
    return losses + [name for name in names if name not in losses and name != "monitor/seconds"]


def _grown_most(layers: Sequence[str], runs: Runs) -> list[str]:
    """By the largest factor of sigma_0 over any run; what is not finite comes first."""
    growth = dict.fromkeys(layers, 0.0)
    for frames in runs.values():
        for layer, rows in frames["spectra"].groupby("layer", observed=True):
            values = rows.sigma0.to_numpy()
            if str(layer) in growth and len(values):
                with np.errstate(all="ignore"):
                    factor = abs(np.log(values[-1] / values[0]))
                factor = float(factor) if np.isfinite(factor) else np.inf
                growth[str(layer)] = max(growth[str(layer)], factor)
    return sorted(layers, key=lambda layer: -growth[layer])


def _series(frame: pd.DataFrame, column: str, name: str, value: str) -> tuple[np.ndarray, np.ndarray]:
    rows = frame[frame[column] == name]
    return rows.step.to_numpy(), rows[value].to_numpy()


def _largest(spectra: pd.DataFrame, network: str) -> tuple[np.ndarray, np.ndarray]:
    """The largest sigma_0 at each step, NaN where one of them is NaN."""
    rows = spectra[spectra.network == network]
    found = rows.groupby("step").sigma0.agg(lambda values: np.max(values.to_numpy()))
    return found.index.to_numpy(), found.to_numpy()


def _panel(axes: Axes, title: str, runs: Runs, styles: Mapping[str, Any], take: Any, *, log: bool = False) -> None:
    """A line for each run that has the series; what is not finite breaks it, and is marked by a cross. Scalars of
    more than 200 steps are running medians over a fiftieth of them."""
    import pandas as pd

    for name, frames in runs.items():
        steps, values = take(frames)
        if not len(steps):
            continue
        shown = np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.nan)
        if not log and len(steps) > 200:  # the noise of one run would hide another
            width = len(steps) // 50
            shown = pd.Series(shown).rolling(width, center=True, min_periods=1).median().where(np.isfinite(shown))
        marker = "." if len(steps) < 3 else None
        axes.plot(steps, shown, lw=1.0, marker=marker, **styles[name])
        mark_broken(axes, (steps.tolist(), values.tolist()), styles[name])
    axes.set_title(_short(title), fontsize=8)
    plain(axes)
    if log:
        logarithmic(axes)


def _short(title: str, most: int = 38) -> str:
    """A title that fits its panel: the end of a layer's name tells more than its beginning."""
    return literal(title if len(title) <= most else "..." + title[3 - most :])
