"""Early warning on made-up courses: areas against brute force, directions, thresholds and leads by construction."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interventions.compare import warning
from interventions.compare.collect import Comparison, Row
from interventions.compare.outcome import RunOutcome
from interventions.compare.warning import WarningSign, warning_signs

NAME = "D's memorization (AUC of training against validation images)"
END = 5000


def study(values: Any, onsets: list[int | None], spacing: int = 100) -> Comparison:
    """One run a base run: values(base, steps) is the series, onsets its collapses."""
    rows, frames = [], {}
    for base, onset in enumerate(onsets):
        path = Path(f"seed-{base}/plain")
        outcome = RunOutcome(path, 0, END, True, onset, judged_until=END - 500, ended="finished")
        rows.append(Row(f"seed-{base}", "plain", "scratch", outcome))
        steps = np.arange(spacing, END + 1, spacing)
        frame = pd.DataFrame({"step": steps, "name": "D/auc/train_val", "value": values(base, steps)})
        frames[path] = {"scalars": frame}
    return Comparison(rows, _frames=frames)


def sign(values: Any, onsets: list[int | None], **given: Any) -> WarningSign:
    return warning_signs(study(values, onsets, **given), [NAME])[0]


ONSETS = [2000, 3000, 4000, 2500]


def test_a_perfect_sign() -> None:
    """0 until the last tenth before the onset, then 1: found in the first hundred steps of the window."""
    found = sign(lambda base, steps: (steps > 0.9 * ONSETS[base]).astype(float), ONSETS)
    assert (found.auc, found.low, found.high, found.above, found.threshold) == (1, 1, 1, True, 1)
    assert (found.warned, found.early, found.missed, found.runs, found.collapsed) == (1, 0, 0, 4, 4)
    assert found.lead == np.median([100, 200, 300, 200])  # first multiples of 100 beyond 1,800, 2,700, 3,600, 2,250
    assert math.isnan(found.false_alarms)


def test_a_falling_series_warns_below() -> None:
    found = sign(lambda base, steps: 1 - steps / ONSETS[base], ONSETS)
    assert (found.auc, found.above) == (1, False)
    assert 0 <= found.threshold <= 0.1


def test_the_direction_is_that_of_the_other_base_runs() -> None:
    """A series that rises in half of the runs and falls in the others is worth nothing out of sample."""
    found = sign(lambda base, steps: (-1) ** base * steps / ONSETS[base], ONSETS)
    assert found.auc <= 0.5


def test_a_growing_series_is_no_better_than_the_clock() -> None:
    found = sign(lambda base, steps: steps.astype(float), ONSETS)
    assert found.auc == pytest.approx(found.clock)
    assert found.clock < 1  # the runs collapse at different steps


@pytest.mark.parametrize("seed", range(5))
def test_the_area_against_all_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    table = {base: random.integers(0, 6, 50).astype(float) for base in range(len(ONSETS))}
    table[0][-40:] = math.nan  # counts as above all
    for base in table:
        table[base] += 3.0 * (np.arange(100, END + 1, 100) > 0.9 * ONSETS[base])  # every direction is up
    found = sign(lambda base, steps: table[base], ONSETS)
    pairs: list[tuple[float, bool]] = []
    for base, onset in enumerate(ONSETS):
        for step in range(100, onset + 1, 100):
            if step >= 0.1 * onset:
                value = table[base][step // 100 - 1]
                pairs.append((math.inf if math.isnan(value) else value, step > 0.9 * onset))
    wins = [
        (one > other) + (one == other) / 2
        for (one, is_positive), (other, too) in itertools.product(pairs, pairs)
        if is_positive and not too
    ]
    assert found.auc == pytest.approx(np.mean(wins))


def test_runs_without_a_collapse_give_false_alarms_only() -> None:
    """The last run stays healthy, and is above the threshold once."""
    onsets = [*ONSETS, None, None]

    def values(base: int, steps: np.ndarray) -> np.ndarray:
        onset = onsets[base]
        return (steps == 1000).astype(float) * (base == 4) if onset is None else (steps > 0.9 * onset).astype(float)

    found = sign(values, onsets)
    assert (found.false_alarms, found.runs, found.collapsed, found.warned) == (0.5, 6, 4, 1)
    assert 0.9 < found.auc < 1


def test_the_future_of_the_end_is_not_known() -> None:
    """A healthy run counts up to a tenth before the last step at which an onset would have been seen."""
    comparison = study(lambda base, steps: steps, [None])
    course = warning._course(comparison, _only(comparison), warning.SERIES[NAME])
    assert course is not None
    assert (course.steps[0], course.steps[-1], course.positive.any()) == (500, 4000, False)


def _only(comparison: Comparison) -> Row:
    return comparison.rows[0]


def test_a_series_that_was_not_recorded_is_left_out() -> None:
    comparison = study(lambda base, steps: steps, ONSETS)
    for frames in comparison._frames.values():
        frames["scalars"] = frames["scalars"].iloc[:0]
    assert warning_signs(comparison, [NAME]) == []


def test_stale_values_do_not_count() -> None:
    """A series every 400 steps gives a point only where it was measured within the last hundred."""
    comparison = study(lambda base, steps: steps, [4000], spacing=400)
    course = warning._course(comparison, _only(comparison), warning.SERIES[NAME])
    assert course is not None
    assert list(course.steps) == list(range(400, 4001, 400))
