"""A run's record as one table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import spectra


def recorded(run: Path) -> pd.DataFrame:
    """The scalars of a run: steps by names."""
    return spectra.load(run)["scalars"].pivot_table(index="step", columns="name", values="value", observed=True)
