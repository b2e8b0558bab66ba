"""How long runs trained before they collapsed: the Kaplan-Meier estimate, delays, and the log-rank test."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from interventions.compare.collect import Comparison, Row, delay, later
from interventions.compare.permutation import LogRank, correct, stratified_logrank_test

if TYPE_CHECKING:
    import pandas as pd


def observed_times(rows: Iterable[Row]) -> list[tuple[int, bool]]:
    """Steps from the branching point to the collapse (True) or to the censoring (False) of the runs at risk. A run is
    censored at the last step at which the beginning of a collapse would still be visible, even if it collapsed after
    that: other runs may have done so unseen."""
    found = []
    for one in (row.outcome for row in rows if row.outcome.at_risk):
        until = math.inf if one.judged_until is None else one.judged_until
        happened = one.collapse is not None and one.collapse <= until
        found.append((one.survived if happened or one.collapse is None else int(until) - one.begin, happened))
    return found


def survival(comparison: Comparison, entry: str) -> Any:
    """The Kaplan-Meier estimate of an entry's survival after the branching point (scipy's `ecdf(...).sf`); None without
    scores. The unit is the base run; for the censoring see `observed_times`."""
    return kaplan_meier(comparison.of(entry))


def kaplan_meier(rows: Iterable[Row]) -> Any:
    """The estimate of these runs; None if none is at risk."""
    from scipy.stats import CensoredData, ecdf

    times = observed_times(rows)
    ended = {kind: [time for time, happened in times if happened is kind] for kind in (True, False)}
    return ecdf(CensoredData(uncensored=ended[True], right=ended[False])).sf if times else None


def survival_tests(comparison: Comparison) -> pd.DataFrame:
    """The log-rank test of each entry against the unchanged runs, stratified by base run: entry, bases, n, collapsed,
    n_unchanged, collapsed_unchanged, p, p_holm, least_p, bases_needed, method.

    All seeds of an entry count, and all unchanged runs of the same base runs; `n` and `n_unchanged` are numbers of
    runs. `p` is exact, by permutation within base runs, whenever all permutations can be counted (`method`). It is 1 if
    every run did exactly what its own control did, and NaN if no run of either group collapsed. A run that ended
    without a collapse ranks after all runs that collapsed. The other columns are as in `interventions.effects`, with
    Holm's correction over the entries.
    """
    import pandas as pd

    rows = []
    for entry in comparison.entries():
        strata = _strata(comparison, entry)
        if not strata:
            continue
        test, (changed, unchanged) = _logrank(strata), _both(strata)
        facts = {"entry": entry, "bases": len(strata), "n": len(changed), "collapsed": _collapsed(changed)}
        facts |= {"n_unchanged": len(unchanged), "collapsed_unchanged": _collapsed(unchanged)}
        p = 1.0 if collapse_as_controls(comparison, changed) else test.p
        rows.append(facts | {"p": p, "method": test.method, "sizes": _sizes(strata)})
    correct(rows, len(comparison.families))
    columns = ["entry", "bases", "n", "collapsed", "n_unchanged", "collapsed_unchanged", "p", "p_holm", "least_p"]
    return pd.DataFrame(rows, columns=[*columns, "bases_needed", "method"]).astype({"bases_needed": "Int64"})


def delay_facts(comparison: Comparison, entry: str) -> dict[str, Any] | None:
    """The facts about an entry's delays; None if not even a sign is known.

    n, changed, unchanged (numbers of base runs and of runs), p, test, sizes; `delays` as (base, steps) where both
    collapsed in every pair, else None; `signs` as (base, sign) where known; `strata` as (steps of the changed,
    of the unchanged ones) where all collapsed.
    """
    strata = [one for one in _strata(comparison, entry) if any(_control(comparison, row) for row in one[0])]
    pairs = [(row, control) for mine, _ in strata for row in mine if (control := _control(comparison, row))]
    signs = [(row.base, sign) for row, control in pairs if not math.isnan(sign := later(row, control))]
    if not signs:
        return None
    delays = [(row.base, delay(row, control)) for row, control in pairs]
    complete = not any(math.isnan(one) for _, one in delays)
    test, (changed, unchanged) = _logrank(strata), _both(strata)
    facts: dict[str, Any] = {"n": len(strata), "changed": len(changed), "unchanged": len(unchanged)}
    facts |= {"p": test.p, "test": f"log-rank, {test.method}", "sizes": _sizes(strata), "signs": signs}
    if collapse_as_controls(comparison, changed):
        facts |= {"p": 1.0, "test": "equal to the control"}
    times = [[[_step(row) for row in group] for group in one] for one in strata]
    return facts | {"delays": delays if complete else None, "strata": [(one, other) for one, other in times]}


def _strata(comparison: Comparison, entry: str) -> list[tuple[list[Row], list[Row]]]:
    """The changed and the unchanged runs at risk, for each base run that has both."""
    found: dict[str, tuple[list[Row], list[Row]]] = {}
    for row in comparison.rows:
        if row.arm == entry and row.outcome.at_risk:
            unchanged = [one for one in comparison.unchanged(row.base, row.control_entry) if one.outcome.at_risk]
            if unchanged:
                found.setdefault(row.base, ([], unchanged))[0].append(row)
    return list(found.values())


def _control(comparison: Comparison, row: Row) -> Row | None:
    """Its own control, if that was at risk too."""
    control = comparison.control_of(row)
    return control if control is not None and control.outcome.at_risk else None


def _logrank(strata: Sequence[tuple[list[Row], list[Row]]]) -> LogRank:
    times = [
        [[(observed_steps(row), row.outcome.collapse is not None) for row in group] for group in s] for s in strata
    ]
    return stratified_logrank_test((one, other) for one, other in times)


def observed_steps(row: Row) -> int:
    """Steps to its collapse or to its end. Runs of one length may be exchanged by what was visible at their end,
    although
    some may have begun to collapse unseen. A run that is still training counts up to the step it can be judged."""
    one = row.outcome
    return one.last - one.begin if one.collapse is None and one.done else one.survived


def collapse_as_controls(comparison: Comparison, changed: Sequence[Row]) -> bool:
    """Whether some run collapsed, and every run collapsed exactly when its own control did, or neither did."""
    pairs = [(row.outcome.collapse, control) for row in changed if (control := _control(comparison, row))]
    alike = len(pairs) == len(changed) and all(at == control.outcome.collapse for at, control in pairs)
    return alike and any(at is not None for at, _ in pairs)


def _step(row: Row) -> float:
    return math.nan if row.outcome.collapse is None else float(row.outcome.collapse)


def _both(strata: Sequence[tuple[list[Row], list[Row]]]) -> tuple[list[Row], list[Row]]:
    return [row for one, _ in strata for row in one], [row for _, other in strata for row in other]


def _collapsed(rows: list[Row]) -> int:
    return sum(row.outcome.collapse is not None for row in rows)


def _sizes(strata: Sequence[tuple[list[Row], list[Row]]]) -> list[tuple[int, int]]:
    return [(len(one), len(other)) for one, other in strata]
