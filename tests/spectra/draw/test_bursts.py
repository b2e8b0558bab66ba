"""What was measured densely after an alarm is drawn as sparsely as the rest."""

from __future__ import annotations

import numpy as np
import pandas as pd

from spectra.draw.bursts import burst_steps, without_bursts


def test_of_a_burst_the_usual_distance_stays() -> None:
    steps = np.array([0, 20, 40, *range(41, 91), 100, 120])
    left_out = burst_steps(steps, [40])
    assert [step for step in steps.tolist() if step not in left_out] == [0, 20, 40, 60, 80, 100, 120]
    assert burst_steps(steps, []) == burst_steps(steps, [20]) == burst_steps(steps, [0]) == []


def test_a_burst_that_another_alarm_prolongs_is_one() -> None:
    steps = np.array([0, 20, 40, *range(41, 121), 140])
    left_out = burst_steps(steps, [40, 70])
    assert [step for step in steps.tolist() if step not in left_out] == [0, 20, 40, 60, 80, 100, 120, 140]


def test_schedules_that_grow_sparse_and_every_step_stay_as_they_are() -> None:
    assert burst_steps(np.array([1, 2, 4, 8, 16, 32]), [4]) == []
    assert burst_steps(np.arange(50), [10]) == []


def test_frames_keep_what_is_not_finite_and_scalars_of_every_step() -> None:
    steps = [0, 20, 40, *range(41, 91), 100]
    sigma = [np.nan if step == 47 else 1.0 for step in steps]
    every = range(101)
    frames = {
        "spectra": pd.DataFrame({"step": steps, "layer": "G.a", "sigma0": sigma}),
        "gradients": pd.DataFrame({"step": steps, "parameter": "G.a.weight", "gradient_norm": 1.0}),
        "scalars": pd.concat([
            pd.DataFrame({"step": steps, "name": "gradient_variance/G", "value": 1.0}),
            pd.DataFrame({"step": every, "name": "loss/G", "value": 1.0}),
        ], ignore_index=True),
        "events": pd.DataFrame({"event": ["alarm", "alarm"], "step": [40, 70], "superseded": [False, True]}),
    }  # fmt: skip
    found = without_bursts(frames)
    assert found["spectra"].step.tolist() == [0, 20, 40, 47, 60, 80, 100]
    assert found["gradients"].step.tolist() == [0, 20, 40, 60, 80, 100]
    scalars = found["scalars"]
    assert scalars[scalars.name == "loss/G"].step.tolist() == list(every)
    assert scalars[scalars.name == "gradient_variance/G"].step.tolist() == [0, 20, 40, 60, 80, 100]
    assert len(frames["spectra"]) == len(steps)
    quiet = {**frames, "events": frames["events"].iloc[:0]}
    assert without_bursts(quiet)["spectra"] is frames["spectra"]
