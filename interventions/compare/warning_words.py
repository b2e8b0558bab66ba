"""The early warning signs as a table for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from interventions.compare.warning import WarningSign


def warnings_table(signs: Sequence[WarningSign]) -> Any:
    """A rich table, the best sign first; shares are out of sample, of runs that collapsed or (false alarms) did not."""
    from rich.table import Table

    facts = signs[0] if signs else None
    title = "Early warning by one threshold for all runs, out of sample"
    if facts is not None:
        title += f": {facts.collapsed} collapsing runs of {facts.runs}; the step number alone reaches {facts.clock:.2f}"
    table = Table(title=title, title_justify="left")
    table.add_column("series")
    for name in ("AUC (95 % interval)", "threshold", "in time", "too early", "missed", "false alarms", "lead, steps"):
        table.add_column(name, justify="right")
    for one in signs:
        cells = [
            f"{one.auc:.2f} ({one.low:.2f} to {one.high:.2f})",
            f"{'above' if one.above else 'below'} {one.threshold:.3g}",
        ]
        cells += [_share(share) for share in (one.warned, one.early, one.missed, one.false_alarms)]
        table.add_row(one.series, *cells, "-" if math.isnan(one.lead) else f"{one.lead:.0f}")
    return table


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0%}"
