"""Survival of changed runs against lifelines and scipy, on made-up outcomes with ties and censoring."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from interventions.compare.claims.survived import _median, survived_effect
from interventions.compare.collect import Comparison, Row
from interventions.compare.outcome import RunOutcome

END = 1300


def run(base: int, entry: str, lived: int, collapsed: bool, seed: int | None = None) -> Row:
    """A branch of step 0 that collapsed after so many steps, or was last seen healthy then."""
    outcome = RunOutcome(Path(f"{base}/{entry}"), 0, END, True, lived if collapsed else None)
    outcome.judged_until, outcome.ended = END if collapsed else lived, "finished"
    return Row(f"seed-{base}", entry, "branch" if entry == "changed" else "control", outcome, seed)


def made_up(seed: int, bases: int = 1) -> list[Row]:
    """Times in hundreds, so with ties; a third of them censored at one of two steps."""
    random = np.random.default_rng(seed)
    rows = []
    for base in range(bases):
        for number in range(int(random.integers(3, 8))):
            entry = "changed" if number < 2 else "control"
            collapsed = bool(random.random() < 0.67)
            lived = int(random.integers(0, 10)) * 100 if collapsed else int(random.choice([900, 1000]))
            rows.append(run(base, entry, lived, collapsed, None if number in (0, 2) else number))
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_medians_and_restricted_means_are_lifelines(seed: int) -> None:
    lifelines = pytest.importorskip("lifelines")
    utils = pytest.importorskip("lifelines.utils")
    rows = [row for row in made_up(seed) if row.entry == "control"]
    times = [row.outcome.survived for row in rows]
    happened = [row.outcome.collapse is not None for row in rows]
    fitted = lifelines.KaplanMeierFitter().fit(times, happened)
    assert _median(rows) == fitted.median_survival_time_
    horizon = min([time for time, event in zip(times, happened, strict=True) if not event], default=END)
    mean = utils.restricted_mean_survival_time(fitted, t=horizon)
    changed = [run(0, "changed", 500, True)]
    found = survived_effect(Comparison([*rows, *changed]), ("changed",))
    assert found is not None
    assert found.effect == pytest.approx(min(500, horizon) - mean)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_p_counts_every_exchange_within_base_runs(seed: int) -> None:
    """Brute force over all choices, with observed minus expected events, worked out step by step, as the statistic."""
    rows = [row for row in made_up(seed, bases=2) if row.seed is None or row.entry == "control"]
    found = survived_effect(Comparison(rows), ("changed",))
    if found is None or not any(row.outcome.collapse for row in rows):
        return
    groups = [[row for row in rows if row.base == base] for base in dict.fromkeys(row.base for row in rows)]
    groups = [one for one in groups if len(one) > 1]
    pairs = [(group[0].outcome.collapse, group[1].outcome.collapse) for group in groups if group[1].seed is None]
    if len(pairs) == len(groups) and all(one == other for one, other in pairs):  # as its control: nothing was done
        assert found.p == 1
        return

    def excess(chosen: tuple[int, ...]) -> float:
        total = 0.0
        for group, place in zip(groups, chosen, strict=True):
            times = [_observed(row) for row in group]
            events = [row.outcome.collapse is not None for row in group]
            for time in sorted({t for t, event in zip(times, events, strict=True) if event}):
                at_risk = sum(t >= time for t in times)
                dead = sum(t == time and event for t, event in zip(times, events, strict=True))
                total -= dead * (times[place] >= time) / at_risk
            total += events[place]
        return total

    sums = [excess(chosen) for chosen in itertools.product(*(range(len(group)) for group in groups))]
    own = excess(tuple(next(i for i, row in enumerate(group) if row.entry == "changed") for group in groups))
    tail = min(sum(one <= own + 1e-9 for one in sums), sum(one >= own - 1e-9 for one in sums)) / len(sums)
    assert found.p == pytest.approx(min(1.0, 2 * tail))


def _observed(row: Row) -> int:
    """What the log-rank test sees: of a run without a collapse, its end."""
    return row.outcome.survived if row.outcome.collapse is not None else row.outcome.last - row.outcome.begin
