"""What follows from a comparison: luck, paired effects, survival. The base run is the unit of statistics."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from interventions.compare import CONTROL, Comparison, Row, delay, later, root_of, table

if TYPE_CHECKING:
    import pandas as pd

COMPARED = (
    "delay", "best_fid_raw", "final_fid_raw", "final_spread_raw", "final_fid_ema", "D_loss_end", "D_loss_max",
    "sigma0_growth", "D_spikes_per_1000", "D/accuracy/train", "D/accuracy/val",
)  # fmt: skip
"""What is compared with the control, base run by base run."""


def luck(comparison: Comparison) -> pd.DataFrame:
    """How far unchanged continuations of one parent lie apart: base, measure, n, least, most, and their deviation."""
    import pandas as pd

    frame, rows = table(comparison), []
    for base in dict.fromkeys(frame["base"]):
        for root in CONTROL:
            mine = frame[[row.base == base and row.family == root for row in comparison.rows]]
            if len(mine) < 2:
                continue
            collapsed = mine.loc[~mine["collapsed_before"].astype(bool), "collapse"].dropna()
            # One that is still under way has numbers of another age: no luck.
            done = mine[mine["ended"].isin(["finished", "stopped"])]
            measures = {"collapse": collapsed} | {name: done[name].dropna() for name in COMPARED if name != "delay"}
            for name, values in measures.items():
                if len(values):
                    deviation = float(values.std(ddof=1)) if len(values) > 1 else math.nan
                    facts = {"base": base, "of": root, "measure": name, "n": len(values), "of_n": len(mine)}
                    rows.append(facts | {"least": values.min(), "most": values.max(), "deviation": deviation})
    columns = ["base", "of", "measure", "n", "of_n", "least", "most", "deviation"]
    return pd.DataFrame(rows, columns=columns)


def effects(comparison: Comparison) -> pd.DataFrame:
    """Each entry against the control, paired by base run: entry, measure, n, mean, low, high, p, lucks.

    `mean` is the mean over base runs of entry minus control, [low, high] its 95 % t-interval (from two base runs on),
    `p` the exact two-sided sign test's over the differences that are not zero, `n` the number of base runs, and
    `lucks` the mean in units of the deviation among unchanged continuations (pooled over base runs). An entry's seeds
    are each held against the unchanged run of that seed, and averaged within their base run first.

    Runs that have not come to their end count in delays only. A delay counts by its sign where only one of the two
    collapsed; it has a mean only where both did in every pair.
    """
    import pandas as pd

    spread, rows = _pooled(luck(comparison)), []
    for entry in comparison.entries():
        pairs = [(row, comparison.control_of(row)) for row in comparison.rows if row.family == entry]
        known = [(row, control) for row, control in pairs if control is not None]
        if not known:
            continue
        root = root_of(known[0][0])
        if delays := _delays(known, spread.get((root, "collapse"), math.nan)):
            rows.append({"entry": entry, "measure": "delay"} | delays)
        for name in COMPARED:
            change = [
                (row.base, row.outcome.numbers.get(name, math.nan) - control.outcome.numbers.get(name, math.nan))
                for row, control in known
                if row.outcome.done and control.outcome.done
            ]
            means = by_base(change)
            if name != "delay" and means:
                rows.append({"entry": entry, "measure": name} | paired(means, spread.get((root, name), math.nan)))
    columns = ["entry", "measure", "n", "mean", "low", "high", "positive", "negative", "p", "lucks"]
    return pd.DataFrame(rows, columns=columns)


def _delays(pairs: list[tuple[Row, Row]], scale: float) -> dict[str, Any] | None:
    """The statistics of delays (see `effects`); none where not even a sign is known."""
    pairs = [(row, control) for row, control in pairs if row.outcome.at_risk and control.outcome.at_risk]
    complete = [(row.base, delay(row, control)) for row, control in pairs]
    signs = by_base([(row.base, later(row, control)) for row, control in pairs])
    if pairs and not any(math.isnan(one) for _, one in complete):
        return paired(by_base(complete), scale)
    known = ("n", "positive", "negative", "p")
    return {name: value for name, value in paired(signs).items() if name in known} if signs else None


def by_base(differences: Iterable[tuple[str, float]]) -> list[float]:
    """The mean difference of each base run, of its finite ones: several seeds of one base run are one observation."""
    found: dict[str, list[float]] = {}
    for base, difference in differences:
        if math.isfinite(difference):
            found.setdefault(base, []).append(difference)
    return [sum(values) / len(values) for values in found.values()]


def paired(differences: list[float], scale: float = math.nan) -> dict[str, Any]:
    """The statistics of paired differences, one a base run (see `effects`)."""
    import numpy as np
    from scipy import stats

    n, mean = len(differences), float(np.mean(differences))
    half = math.nan
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / math.sqrt(n))
    positive, negative = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    p = stats.binomtest(positive, positive + negative).pvalue if positive + negative else 1.0
    lucks = mean / scale if scale > 0 else math.nan
    found = {"n": n, "mean": mean, "low": mean - half, "high": mean + half}
    return found | {"positive": positive, "negative": negative, "p": float(p), "lucks": lucks}


def _pooled(spread: pd.DataFrame) -> dict[tuple[str, str], float]:
    """The deviation of each measure among unchanged continuations, pooled over base runs."""
    found = {}
    for (root, name), group in spread.groupby(["of", "measure"]):
        known = group.dropna(subset="deviation")
        freedom = (known["n"] - 1).sum()
        if freedom > 0:
            found[root, name] = math.sqrt(((known["n"] - 1) * known["deviation"] ** 2).sum() / freedom)
    return found


def survival(comparison: Comparison, entry: str) -> Any:
    """The Kaplan-Meier estimate of an entry's survival after the branching point (scipy's `ecdf(...).sf`); none without
    scores. The unit is the base run."""
    from scipy.stats import ecdf

    data = _censored(comparison.of(entry))
    return None if data is None else ecdf(data).sf


def survival_tests(comparison: Comparison) -> pd.DataFrame:
    """The log-rank test of each entry against the control: entry, n, collapsed, n_control, collapsed_control, p.

    `p` is NaN where no run of either collapsed: there is nothing to tell apart.
    """
    import pandas as pd
    from scipy.stats import logrank

    rows = []
    for entry in comparison.entries():
        mine = [row for row in comparison.of(entry) if row.outcome.at_risk]
        control = [row for row in comparison.of(root_of(mine[0])) if row.outcome.at_risk] if mine else []
        one, other = _censored(mine), _censored(control)
        if one is None or other is None:
            continue
        collapsed = [sum(row.outcome.collapse is not None for row in rows) for rows in (mine, control)]
        p = float(logrank(one, other).pvalue) if sum(collapsed) else math.nan
        facts = {"entry": entry, "n": len(mine), "collapsed": collapsed[0]}
        rows.append(facts | {"n_control": len(control), "collapsed_control": collapsed[1], "p": p})
    return pd.DataFrame(rows, columns=["entry", "n", "collapsed", "n_control", "collapsed_control", "p"])


def _censored(rows: list[Row]) -> Any:
    from scipy.stats import CensoredData

    known = [row.outcome for row in rows if row.outcome.at_risk]
    if not known:
        return None
    happened = [one.survived for one in known if one.collapse is not None]
    survived = [one.survived for one in known if one.collapse is None]
    return CensoredData(uncensored=happened, right=survived)
