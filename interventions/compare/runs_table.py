"""All numbers of all runs of a comparison as one table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from interventions.compare.collect import Comparison, delay

if TYPE_CHECKING:
    import pandas as pd


def table(comparison: Comparison) -> pd.DataFrame:
    """One row per run: base, entry, kind, collapse (a step or None), censored, judged_until, delay, and every number.

    NaN means that a number is not known, or that it is NaN; in the second case `not_finite` names it.
    """
    import pandas as pd

    rows = []
    for row in comparison.rows:
        one = row.outcome
        known = one.at_risk or one.collapse is not None
        rows.append(
            {
                "base": row.base,
                "entry": row.name,
                "kind": row.kind,
                "begin": one.begin,
                "last": one.last,
                "judged_until": math.nan if one.judged_until is None else one.judged_until,
                "collapse": math.nan if one.collapse is None else one.collapse,
                "rule": one.collapse_rule,
                "collapsed_before": one.collapsed_before,
                "censored": (one.collapse is None) if known else None,
                "delay": delay(row, comparison.control_of(row)),
                "ended": one.ended,
                "record": one.record,
                "not_finite": " ".join(not_finite(one.numbers)),
            }
            | {name: math.nan if value is None else value for name, value in one.numbers.items()}
            | one.layers
        )
    return pd.DataFrame(rows)


def not_finite(numbers: Mapping[str, float | None]) -> list[str]:
    """The names of the numbers that are NaN or Inf."""
    return [name for name, value in numbers.items() if value is not None and not math.isfinite(value)]
