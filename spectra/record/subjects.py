"""The rows of one layer or parameter, by the one name that frames, legends and options have for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spectra.nearest import nearest

if TYPE_CHECKING:
    import pandas as pd


def rows_named(frame: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The rows of some layers, parameters, networks or scalars.

        spectra.rows_named(spectra.load(run)["spectra"], "G.linear").sigma0

    Args:
        frame: a frame of `spectra.load`, but "events".
        names: what a row is of, in the column `layer`, `parameter` or `name`: "G.linear", with the network in front.
            A network's name ("G") stands for all of its rows.

    Raises:
        ValueError: a name that no row has (comparing a column with one gives an empty frame in silence); the message
            has the nearest. Or a frame without such a column.
    """
    column = next((one for one in ("layer", "parameter", "name") if one in frame), None)
    if column is None:
        raise ValueError(f"this frame has no column layer, parameter or name; it has {', '.join(map(str, frame))}")
    networks = {str(one) for one in frame.network.unique()} if "network" in frame else set()
    subjects = [str(one) for one in frame[column].unique()]
    chosen = frame[column].isin(names)
    for name in names:
        if name in networks:
            chosen |= frame.network == name
        else:
            check_recorded(name, subjects, column)
    return frame[chosen]


def check_recorded(name: str, known: Sequence[str], what: str) -> None:
    """Raise `ValueError`, with the nearest names, unless `name` is one of `known`."""
    if name in known:
        return
    whole = [one for one in known if one.endswith(f".{name}")]
    hint = f"; did you mean {' or '.join(map(repr, whole[:3]))}?" if whole else nearest(name, known)
    shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    raise ValueError(f"no {what} called {name!r} was recorded{hint} Recorded: {shown or 'none'}")
