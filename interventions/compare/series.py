"""Series over the steps of a run: scores, D's loss, sigma_0; and the course of a base run with its onset."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from interventions.compare.collect import UNCHANGED, Comparison
from interventions.compare.measures import d_loss
from interventions.compare.outcome import recorded_scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

Series = tuple[list[int], list[float]]
"""Steps and values."""


def score_series(frames: Mapping[str, Any], begin: int, name: str) -> Series | None:
    """A score of raw weights from step `begin` on; None without any."""
    scores = [one for one in recorded_scores(frames["events"]) if one["weights"] == "raw" and name in one]
    mine = [one for one in scores if one["step"] >= begin]
    return ([one["step"] for one in mine], [one[name] for one in mine]) if mine else None


def d_loss_series(frames: Mapping[str, Any], begin: int) -> Series | None:
    """D's loss after step `begin`, a running mean over 25 steps; NaN where any of these is not finite."""
    import numpy as np
    import pandas as pd

    loss = d_loss(frames["scalars"][frames["scalars"]["step"] > begin])
    # A step counts as a second, for a window of steps however many of them a thinned record holds.
    timed = loss.set_axis(pd.to_timedelta(loss.index, unit="s"))
    broken = (~np.isfinite(timed)).astype(float).rolling("25s").max() > 0  # a rolling mean would pass over NaN
    smooth = timed.rolling("25s").mean().mask(broken)
    return None if loss.empty else (loss.index.tolist(), smooth.tolist())


def sigma_series(frames: Mapping[str, Any], begin: int, network: str) -> Series | None:
    """The largest sigma_0 of a network's layers after step `begin`; NaN where that of any layer is."""
    frame = frames["spectra"]
    mine = frame[(frame["network"] == network) & (frame["step"] > begin)]
    largest = mine.groupby("step")["sigma0"].agg(_largest)
    return None if largest.empty else (largest.index.tolist(), largest.tolist())


def _largest(values: pd.Series) -> float:
    return float(values.max(skipna=bool(values.isna().all())))


@dataclass
class BaseCourse:
    """The course of a base run from its beginning, as far as it is recorded."""

    base: str
    path: Path
    """The run that it is read from: the base run itself, or its unchanged continuation."""
    fid: Series | None
    spread: Series | None
    loss: Series | None
    onset: int | None
    """The step at which its samples began to collapse; None: they did not, as far as could be seen."""
    branched_at: list[int] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The last step of any of its series; 0 without any."""
        return max((one[0][-1] for one in (self.fid, self.spread, self.loss) if one), default=0)

    def fid_near(self, step: int) -> float:
        """The median of the three FIDs nearest to a step; Inf if they are not finite, NaN without any."""
        if self.fid is None:
            return math.nan
        near = sorted(zip(*self.fid, strict=True), key=lambda one: abs(one[0] - step))[:3]
        return median(value if math.isfinite(value) else math.inf for _, value in near)

    def at(self, step: int) -> str:
        """FID and spread of the evaluation nearest to a step, in words; empty without any."""
        found = []
        for words, series in (("FID", self.fid), ("spread", self.spread)):
            if series:
                value = min(zip(*series, strict=True), key=lambda one: abs(one[0] - step))[1]
                found.append(f"{words} {value:.3g}")
        return ", ".join(found)


def base_courses(comparison: Comparison) -> list[BaseCourse]:
    """The course of every base run that has one: from the base run, where that still exists, or else from the unchanged
    run, whose events hold its parent's evaluations too. Base runs without scores are left out."""
    found = []
    for base in dict.fromkeys(row.base for row in comparison.rows):
        mine = [row for row in comparison.rows if row.base == base]
        own = [row for entry in reversed(UNCHANGED) for row in mine if row.name == entry and row.is_unchanged]
        path = comparison.parents.get(base) or (own[0].outcome.path if own else None)
        if path is not None:
            begins = {row.outcome.begin for row in mine if row.kind != "scratch"}
            course = course_from(base, path, comparison.frames(path), sorted(begins))
            found += [course] if course.fid or course.spread else []
    return found


def course_from(base: str, path: Path, frames: Mapping[str, Any], begins: list[int]) -> BaseCourse:
    """The course of the run in `path`, whose record is `frames`."""
    from biggan.observers.collapse import judge_collapse

    fid, spread = (score_series(frames, 0, name) for name in ("fid", "spread_share"))
    steps = sorted({step for series in (fid, spread) if series for step in series[0]})
    fids, spreads = (dict(zip(*series, strict=True)) if series else {} for series in (fid, spread))
    judged = judge_collapse(
        steps, [spreads.get(step, math.nan) for step in steps], [fids.get(step, math.nan) for step in steps]
    )
    onset = None if judged.lasting is None else judged.lasting.onset
    return BaseCourse(base, path, fid, spread, d_loss_series(frames, 0), onset, begins)
