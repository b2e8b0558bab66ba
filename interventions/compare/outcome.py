"""The outcome of one run, from its record and events: collapse, scores, losses, spectra, accuracies."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from interventions.compare.measures import Numbers, has_gaps, read_sigmas, record_numbers, stored_numbers
from spectra.record.damage import RecordDamage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from spectra.detect.finding import Finding

MEDIAN_OF = 5


@dataclass
class RunOutcome:
    """The numbers of one run from step `begin` on.

    A number is None or missing if nothing was recorded, or if the record is not enough to compute it. It is NaN or Inf
    if the run was not finite; it then counts as worse than every finite number.
    """

    path: Path
    begin: int
    last: int
    """The last recorded step."""
    scored: bool
    """Whether it has scores of raw weights after `begin`."""
    collapse: int | None = None
    """The step at which a collapse without recovery began; None: there was none up to `judged_until` (censored), or
    nothing is known."""
    collapse_rule: str | None = None
    """The rule of `biggan.Collapse` that decided; "non_finite": its numbers became NaN or Inf and stayed so."""
    collapsed_before: bool = False
    """Whether it had already collapsed at `begin`: such a branch was never at risk."""
    judged_until: int | None = None
    """The last step at which an onset would still be visible by the end; None if there is too little data to judge."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The evaluation settings of its scores; empty if nothing was scored, or no settings were recorded."""
    mixed: int = 0
    """Evaluations under other settings, such as its parent's, which are ignored."""
    numbers: Numbers = field(default_factory=dict)
    """The columns of the comparison by name."""
    layers: dict[str, str | None] = field(default_factory=dict)
    """The layer of each spectral number, as NUMBER_layer."""
    record: str = "whole"
    """"whole"; "thinned", so that what needs every step is not known; "thinned, numbers of the whole", which were
    stored beside it when it was thinned."""
    damage: list[str] = field(default_factory=list)
    """What of its record and events is damaged and left out, in words."""
    ended: str | None = None
    """Its last event: finished, interrupted, stopped, or none."""
    stopped_by: str | None = None
    """Why it stopped, where it did: "non_finite" (its numbers were), or the cause of an alarm that it was told to stop
    at, such as "collapse"."""

    @property
    def done(self) -> bool:
        """Whether it has ended, so that its last and best numbers may be compared with those of other runs."""
        return self.ended in ("finished", "stopped")

    @property
    def at_risk(self) -> bool:
        """Whether it counts for survival: it had not collapsed at `begin`, and a collapse happened or would be
        visible."""
        return not self.collapsed_before and (self.collapse is not None or self._judged)

    @property
    def too_short(self) -> bool:
        """Whether it has scores, but too few evaluations after `begin` for a collapse to be visible by its end."""
        return self.scored and self.collapse is None and not self._judged

    @property
    def _judged(self) -> bool:
        return self.scored and self.judged_until is not None and self.judged_until > self.begin

    @property
    def survived(self) -> int:
        """Steps from `begin` to the collapse, or to the last step at which the beginning of one would be visible."""
        end = self.judged_until if self.collapse is None else self.collapse
        return max((self.begin if end is None else end) - self.begin, 0)


def read_outcome(path: str | Path, begin: int) -> RunOutcome:
    """The outcome of the run in `path` from step `begin` on. Raises `UserError` where it is not a run."""
    import spectra
    from biggan.errors import UserError

    path = Path(path)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            frames = spectra.load(path)
    except FileNotFoundError as error:
        raise UserError(f"{error}. Give run directories, or a plan's.") from error
    found, scored = _judged(path, frames, begin)
    found.damage = [str(one.message) for one in said if issubclass(one.category, RecordDamage)]
    numbers, found.layers, found.record = read_numbers(path, frames, begin)
    scores = score_numbers([one for one in scored if one["step"] > begin])
    if begin:
        scores["best_fid_over_parent"] = _over_parent(scored, begin)
    found.numbers |= scores | numbers
    if found.stopped_by == "non_finite":
        _break_off(found, scores)
    return found


def _judged(path: Path, frames: Mapping[str, Any], begin: int) -> tuple[RunOutcome, list[dict[str, Any]]]:
    """How the run ended and whether it collapsed, still without numbers, and all its scores."""
    from biggan.observers.collapse_of_run import same_settings, settings_of

    scalars, events = frames["scalars"], frames["events"]
    evaluations = _evaluations(events)
    scored = recorded_scores(events)
    own = [scores for scores in scored if scores["step"] > begin]
    steps = scalars.loc[scalars["step"] > begin, "step"]
    last = int(max([begin, *([int(steps.max())] if len(steps) else []), *(one["step"] for one in own)]))
    found = RunOutcome(path, begin, last, scored=any(one["weights"] == "raw" for one in own))
    found.settings = next((settings for e in reversed(evaluations) if (settings := settings_of(e))), {})
    found.mixed = len(evaluations) - len(same_settings(evaluations))
    held = events[~events["superseded"].astype(bool)]
    if len(held) and held["event"].iloc[-1] in ("finished", "interrupted", "stopped"):
        found.ended, found.last = held["event"].iloc[-1], max(last, int(held["step"].iloc[-1]))
    if found.ended == "stopped":
        found.stopped_by = _reason(held["details"].iloc[-1])
    _collapse(scored, found)
    return found, scored


def read_numbers(path: Path, frames: Mapping[str, Any], begin: int) -> tuple[Numbers, dict[str, str | None], str]:
    """The numbers of the record in `path`, loaded as `frames`, their layers, and what they were made from (see
    `RunOutcome.record`): of a thinned one the numbers that were stored beside it."""
    scalars = frames["scalars"]
    numbers, layers = record_numbers(scalars, read_sigmas(path, frames["spectra"]), begin)
    if begin == 0:
        numbers |= _course(path, frames)
    if stored := stored_numbers(path, begin):
        return numbers | stored[0], layers | stored[1], "thinned, numbers of the whole"
    return numbers, layers, "thinned" if has_gaps(scalars[scalars["step"] > begin]) else "whole"


def _course(path: Path, frames: Mapping[str, Any]) -> Numbers:
    """The numbers of a run from scratch that need its onset (see `interventions.compare.course`)."""
    from interventions.compare.course import course_numbers

    found, scored = _judged(path, frames, 0)
    return course_numbers(frames, scored, found.collapse, found.last)


def _over_parent(scored: Sequence[Mapping[str, Any]], begin: int) -> float | None:
    """A branch's best FID over its parent's best before the branch, both running medians; None without one of them."""
    best = [
        score_numbers([one for one in scored if (one["step"] > begin) == own])[f"best_fid_raw_median{MEDIAN_OF}"]
        for own in (True, False)
    ]
    return None if best[0] is None or not best[1] else best[0] / best[1]


def _reason(stopped: Mapping[str, Any]) -> str:
    """The reason of a `stopped` event; those from before there were others give none."""
    return str(stopped["cause"]) if stopped.get("reason") == "alarm" else "non_finite"


def _break_off(found: RunOutcome, scores: Numbers) -> None:
    """For a run that was stopped because its numbers were not finite: its numbers at the end are NaN, even if an
    earlier
    evaluation was finite; without any evaluation it has no scores."""
    for name, value in found.numbers.items():
        broken = name in scores if value is None else math.isfinite(value)
        if broken and name != "D_loss_start":
            found.numbers[name] = math.nan


def recorded_scores(events: pd.DataFrame) -> list[dict[str, Any]]:
    """The scores of every `evaluation` event in order of steps: step, weights, and each score that was computed.

    Those under other settings than the last are left out (`biggan.same_settings`).
    """
    from biggan.observers.collapse_of_run import same_settings

    found: dict[tuple[int, str], dict[str, Any]] = {}
    for event in same_settings(_evaluations(events)):
        # NaN and Inf stand there as texts.
        scores = {name: float(value) for name, value in event["scores"].items() if value is not None}
        found[event["step"], event["weights"]] = {"step": event["step"], "weights": event["weights"]} | scores
    return sorted(found.values(), key=lambda one: one["step"])


def _evaluations(events: pd.DataFrame) -> list[Mapping[str, Any]]:
    """The `evaluation` events that were not superseded, each with its step."""
    held = events[(events["event"] == "evaluation") & ~events["superseded"].astype(bool)]
    return [{**event.details, "step": int(event.step)} for event in held.itertuples()]


def _collapse(scored: Sequence[Mapping[str, Any]], found: RunOutcome) -> None:
    """Apply `biggan.judge_collapse` to the whole series of raw scores, including those before the branching point.

    A run whose numbers became NaN or Inf and stayed so, or that was stopped for this reason, counts as collapsed.
    """
    from biggan.observers.collapse import judge_collapse

    raw = [one for one in scored if one["weights"] == "raw" and ("fid" in one or "spread_share" in one)]
    steps = [one["step"] for one in raw]
    spreads, fids = ([one.get(name, math.nan) for one in raw] for name in ("spread_share", "fid"))
    judged = judge_collapse(steps, spreads, fids)
    found.judged_until = judged.judged_until
    before = [one for one in judged.findings if one.step <= found.begin]
    found.collapsed_before = bool(before) and before[-1].kind == "collapse"
    rows = zip(steps, spreads, fids, strict=True)
    told = [step for step, spread, fid in rows if math.isfinite(spread) or not math.isnan(fid)]
    finding = before[-1] if found.collapsed_before else lasting_after(judged.findings, told, found.begin)
    if finding is not None:
        found.collapse, found.collapse_rule = finding.onset, str(finding.details.get("rule", ""))
        return
    broken = _trailing_non_finite(steps, spreads, fids)
    if broken is not None:
        found.collapse = max((step for step in steps if step < broken), default=found.begin)
    elif found.stopped_by == "non_finite":
        broken = found.collapse = found.last
    if broken is not None:
        found.collapse_rule, found.collapsed_before = "non_finite", broken <= found.begin


def lasting_after(findings: Sequence[Finding], steps: Sequence[int], begin: int) -> Finding | None:
    """The first collapse said after `begin` that lasts (see `biggan.judge_collapse`, whose findings these are:
    its `lasting` is the first of the whole series, which may have ended before `begin`). `steps` are those of the
    evaluations that told something."""
    from biggan.observers.collapse import CollapseThresholds

    for number, finding in enumerate(findings):
        if finding.kind != "collapse" or finding.step <= begin:
            continue
        ends = [one.step for one in findings[number + 1 : number + 2]]
        if not ends or sum(finding.step < step <= ends[0] for step in steps) > CollapseThresholds().lasting:
            return finding
    return None


def _trailing_non_finite(steps: Sequence[int], spreads: Sequence[float], fids: Sequence[float]) -> int | None:
    """The first step after which neither FID nor spread is finite; None if the last evaluation gave a finite value."""
    broken = None
    for step, spread, fid in zip(reversed(steps), reversed(spreads), reversed(fids), strict=True):
        if math.isfinite(spread) or math.isfinite(fid):
            break
        broken = step
    return broken


def score_numbers(own: Sequence[Mapping[str, Any]]) -> Numbers:
    """Best and final scores as running medians over five evaluations (of fewer than five, the median of all), since
    one FID alone is noisy; and the last ones alone.

    An evaluation that is not finite counts as worse than any other in its median. A run whose last score is NaN or Inf
    has that for its best one too: it did not keep any other.
    """
    numbers: Numbers = {}
    for weights in ("raw", "ema"):
        mine = [scores for scores in own if scores["weights"] == weights]
        for score, worst in (("fid", math.inf), ("is", -math.inf)):
            values = [one[score] for one in mine if score in one]
            best, final = _medians(values, worst)
            suffix = f"{weights}_median{MEDIAN_OF}"
            numbers |= {f"best_{score}_{suffix}": best, f"final_{score}_{suffix}": final}
            numbers[f"last_{score}_{weights}"] = values[-1] if values else None
        spreads = [one["spread_share"] for one in mine if "spread_share" in one]
        numbers[f"last_spread_{weights}"] = spreads[-1] if spreads else None
    return numbers


def _medians(values: Sequence[float], worst: float) -> tuple[float | None, float | None]:
    """The best and the last running median."""
    if not values or not math.isfinite(values[-1]):
        return (values[-1], values[-1]) if values else (None, None)
    ordered = [value if math.isfinite(value) else worst for value in values]
    window = min(MEDIAN_OF, len(ordered))
    smooth = [median(ordered[i : i + window]) for i in range(len(ordered) - window + 1)]
    return (min if worst > 0 else max)(smooth), smooth[-1]
