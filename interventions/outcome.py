"""What became of one run: collapse, scores, losses, spectra, accuracies, from its record and events."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

LOSS_STEPS = 10
MEDIAN_OF = 5
ACCURACIES = ("accuracy/D_real", "accuracy/D_fake", "D/accuracy/train", "D/accuracy/val", "D/accuracy/fake")


@dataclass
class RunOutcome:
    """The numbers of one run from step `begin` on; NaN where nothing was recorded."""

    path: Path
    begin: int
    last: int
    """The last recorded step."""
    scored: bool
    """Whether it holds scores of raw weights after `begin`."""
    collapse: int | None = None
    """The step at which its collapse began; none: it had not by `last` (censored), or nothing is known."""
    collapse_rule: str | None = None
    """By which rule of `spectra.detect.Collapse`; "non_finite": its numbers became NaN or Inf, and stayed so."""
    collapsed_before: bool = False
    """Whether it had collapsed by `begin` already: a branch of it was never at risk."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What its scores depend on; empty where nothing was scored, or the record does not say."""
    mixed: int = 0
    """Evaluations under other settings, such as its parent's: they are left out."""
    numbers: dict[str, float] = field(default_factory=dict)
    """The columns of the comparison by name."""
    growth_layer: str | None = None
    ended: str | None = None
    """Its last event: finished, interrupted, stopped, or none."""

    @property
    def done(self) -> bool:
        """Whether it has come to its end, so that its last and best numbers may be held against others'."""
        return self.ended in ("finished", "stopped")

    @property
    def at_risk(self) -> bool:
        """Whether it counts in questions of survival: something is known of it, and it began whole."""
        return (self.scored or self.collapse is not None) and not self.collapsed_before

    @property
    def survived(self) -> int:
        """Steps from `begin` to the collapse, or to the last step where there was none."""
        return max((self.last if self.collapse is None else self.collapse) - self.begin, 0)


def read_outcome(path: str | Path, begin: int) -> RunOutcome:
    """The outcome of the run in `path` from step `begin` on. Raises `UserError` where it is no run."""
    import spectra
    from biggan.errors import UserError
    from spectra.detectors import same_settings, settings_of

    path = Path(path)
    try:
        frames = spectra.load(path)
    except FileNotFoundError as error:
        raise UserError(f"{error}. Give run directories, or a plan's.") from error
    scalars, events = frames["scalars"], frames["events"]
    evaluations = _evaluations(events)
    scores = read_scores(events)
    steps = scalars.loc[scalars["step"] > begin, "step"]
    own = scores[scores["step"] > begin]
    last = int(max([begin, *([int(steps.max())] if len(steps) else []), *own["step"].tolist()]))
    found = RunOutcome(path, begin, last, scored=bool((own["weights"] == "raw").any()))
    found.settings = next((settings for e in reversed(evaluations) if (settings := settings_of(e))), {})
    found.mixed = len(evaluations) - len(same_settings(evaluations))
    held = events[~events["superseded"].astype(bool)]
    if len(held) and held["event"].iloc[-1] in ("finished", "interrupted", "stopped"):
        found.ended, found.last = held["event"].iloc[-1], max(last, int(held["step"].iloc[-1]))
    _collapse(scores, found)
    found.numbers |= _scores(own) | _losses(scalars, begin) | _accuracies(scalars, begin)
    found.numbers |= _spectra(frames["spectra"], begin, found)
    return found


def read_scores(events: pd.DataFrame) -> pd.DataFrame:
    """The `evaluation` events as a frame: step, weights, and a column a score; in order of their steps.

    Those under other settings than the last are left out (`spectra.detectors.same_settings`).
    """
    import pandas as pd

    from spectra.detectors import same_settings

    rows = []
    for event in same_settings(_evaluations(events)):
        scores = {name: _number(value) for name, value in event["scores"].items()}
        rows.append({"step": event["step"], "weights": event["weights"]} | scores)
    frame = pd.DataFrame(rows, columns=None if rows else ["step", "weights"])
    return frame.drop_duplicates(["step", "weights"], keep="last").sort_values("step", kind="stable", ignore_index=True)


def _evaluations(events: pd.DataFrame) -> list[Mapping[str, Any]]:
    """The `evaluation` events that hold, each with its step."""
    held = events[(events["event"] == "evaluation") & ~events["superseded"].astype(bool)]
    return [{**event.details, "step": int(event.step)} for event in held.itertuples()]


def d_loss(scalars: pd.DataFrame) -> pd.Series:
    """D's loss, real and fake parts added, by step."""
    parts = scalars[scalars["name"].isin(["loss/D_real", "loss/D_fake"])]
    # A part that is NaN makes the sum NaN: it is data.
    table = parts.pivot_table(index="step", columns="name", values="value", observed=True, dropna=False)
    return table.sum(axis=1, skipna=False)


def _collapse(scores: pd.DataFrame, found: RunOutcome) -> None:
    """By `spectra.detect.collapse` over the whole series of raw scores, that before the branching point too.

    A run whose numbers became NaN or Inf and stayed so, or that was stopped for it, has not survived either.
    """
    from spectra.detect import collapse

    raw, finding = scores[scores["weights"] == "raw"], None
    if "spread_share" in raw and "fid" in raw:
        finding = collapse(raw["step"].tolist(), raw["spread_share"].tolist(), raw["fid"].tolist())
    if finding is not None:
        found.collapse, found.collapse_rule = finding.onset, str(finding.details.get("rule", ""))
        found.collapsed_before = finding.step <= found.begin
        return
    broken = _trailing_non_finite(raw)
    if broken is None and found.ended == "stopped":
        broken = found.last
    if broken is not None:
        found.collapse, found.collapse_rule, found.collapsed_before = broken, "non_finite", broken <= found.begin


def _trailing_non_finite(raw: pd.DataFrame) -> int | None:
    """The first step from which on neither FID nor spread is finite; none where the last evaluation gave one."""
    import numpy as np

    known = [name for name in ("spread_share", "fid") if name in raw]
    if raw.empty or not known:
        return None
    finite = np.isfinite(raw[known].to_numpy(dtype=float)).any(axis=1)
    broken = len(finite) - int(np.argmax(finite[::-1])) if finite.any() else 0
    return int(raw["step"].iloc[broken]) if broken < len(finite) else None


def _scores(own: pd.DataFrame) -> dict[str, float]:
    """Best and final scores; an FID of one evaluation is noisy, so both are of the running median over five.

    Of fewer than five it is the median of all. A run whose last score is NaN or Inf has that for its best and final
    one: it did not keep any other.
    """
    numbers: dict[str, float] = {}
    for weights in ("raw", "ema"):
        mine = own[own["weights"] == weights]
        for score, best in (("fid", "min"), ("is", "max")):
            series = mine[score] if score in mine else mine["step"].iloc[:0].astype(float)
            last = series.iloc[-1] if len(series) else math.nan
            names = (f"best_{score}_{weights}", f"final_{score}_{weights}")
            if not math.isfinite(last):
                numbers |= dict.fromkeys(names, last)
                continue
            finite = series[series.map(math.isfinite)]
            window = min(MEDIAN_OF, len(finite))
            smooth = finite.rolling(window, min_periods=window).median()
            numbers |= dict(zip(names, (getattr(smooth, best)(), smooth.iloc[-1]), strict=True))
        spread = mine.get("spread_share", [])
        numbers[f"final_spread_{weights}"] = spread.iloc[-1] if len(spread) else math.nan
    return {name: float(value) for name, value in numbers.items()}


def _losses(scalars: pd.DataFrame, begin: int) -> dict[str, float]:
    """D's loss as a mean over the first and the last ten steps, and its largest; its parts at the end."""
    import numpy as np

    after = scalars[scalars["step"] > begin]
    loss = d_loss(after)
    names = ("D_loss_start", "D_loss_end", "D_loss_max", "D_loss_real_end", "D_loss_fake_end")
    if loss.empty:
        return dict.fromkeys(names, math.nan)
    ends = [_last(after, name, LOSS_STEPS) for name in ("loss/D_real", "loss/D_fake")]
    largest = math.nan if np.isnan(loss).any() else loss.max()
    start, end = loss[:LOSS_STEPS].mean(), loss[-LOSS_STEPS:].mean(skipna=False)
    return dict(zip(names, map(float, (start, end, largest, *ends)), strict=True))


def _accuracies(scalars: pd.DataFrame, begin: int) -> dict[str, float]:
    """D's accuracies at the end: on the batches it was trained on (a mean over ten), and on fixed images."""
    after = scalars[scalars["step"] > begin]
    return {name: _last(after, name, LOSS_STEPS if name.startswith("accuracy") else 1) for name in ACCURACIES}


def _last(scalars: pd.DataFrame, name: str, count: int) -> float:
    values = scalars.loc[scalars["name"] == name, "value"]
    return float(values.iloc[-count:].mean(skipna=False)) if len(values) else math.nan


def _spectra(frame: pd.DataFrame, begin: int, found: RunOutcome) -> dict[str, float]:
    """The largest growth of a layer's sigma_0 from its first measurement after `begin` on, and D's spikes."""
    from spectra.detect import spikes

    after = frame[frame["step"] > begin]
    numbers = {"sigma0_growth": math.nan, "D_spikes_per_1000": math.nan}
    if after.empty:
        return numbers
    table = after.pivot_table(index="step", columns="layer", values="sigma0", observed=True)
    growth = (table.max() / table.iloc[0]).dropna()
    if len(growth):
        found.growth_layer = str(growth.idxmax())
        numbers["sigma0_growth"] = float(growth.max())
    mine = set(after.loc[after["network"] == "D", "layer"].astype(str))
    layers = {str(name): table[name].tolist() for name in table if str(name) in mine}
    span = int(table.index[-1]) - begin
    if layers and span > 0:
        numbers["D_spikes_per_1000"] = 1000 * len(spikes([int(s) for s in table.index], layers)) / span
    return numbers


def _number(value: Any) -> float:
    """A score of an event: NaN and Inf stand there as texts."""
    return math.nan if value is None else float(value)
