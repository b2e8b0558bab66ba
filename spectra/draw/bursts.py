"""Leaves out of a drawing what was measured densely after an alarm: a band of close points looks like more variance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def without_bursts(frames: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The frames of `spectra.load` with the measurements after alarms as far apart as those before.

    What is not finite stays. The record keeps everything, and a figure of a jump shows it.
    """
    events = frames["events"]
    valid = events[(events.event == "alarm") & ~events.superseded.astype(bool)]
    alarms = sorted(int(step) for step in valid.step)
    found = dict(frames)
    if not alarms:
        return found
    for name, subject in (("spectra", "layer"), ("gradients", "parameter"), ("scalars", "name")):
        frame = frames[name]
        if not len(frame):
            continue
        drop = np.zeros(len(frame), dtype=bool)
        steps = frame.step.to_numpy()
        for rows in frame.groupby(subject, observed=True, sort=False).indices.values():
            drop[rows] = np.isin(steps[rows], burst_steps(steps[rows], alarms))
        value = {"spectra": "sigma0", "gradients": "gradient_norm", "scalars": "value"}[name]
        found[name] = frame[~drop | ~np.isfinite(frame[value].to_numpy())]
    return found


def burst_steps(steps: np.ndarray, alarms: Iterable[int]) -> list[int]:
    """Of growing `steps`, those after an alarm that follow the last kept one more closely than those before the alarm
    followed each other."""
    left_out: set[int] = set()
    for alarm in alarms:
        first = int(np.searchsorted(steps, alarm, side="right"))
        if first < 2:
            continue
        usual, last = steps[first - 1] - steps[first - 2], steps[first - 1]
        for before, step in zip(steps[first - 1 :], steps[first:], strict=False):
            if step - before >= usual:
                break
            if step - last >= usual:
                last = step
            else:
                left_out.add(int(step))
    return sorted(left_out)
