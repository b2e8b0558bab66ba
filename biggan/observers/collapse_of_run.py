"""The collapse of a run, from its `evaluation` events."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from biggan.observers.collapse import CollapseJudgement, CollapseThresholds, judge_collapse
from spectra.detect.finding import Finding
from spectra.detect.registry import Detector


class CollapseOfSamples(Detector):
    """Collapses and recoveries of a run's raw generator. While it trains, `biggan.Evaluation` raises their events."""

    kinds, what = ("collapse", "recovered"), "the collapse of the samples"
    thresholds = CollapseThresholds
    is_outcome = True

    def from_events(self, events: Sequence[Mapping[str, Any]]) -> list[Finding]:
        """See `judge_events`."""
        return judge_events(events, **self.given).findings

    def outcome(self, events: Sequence[Mapping[str, Any]]) -> Finding | None:
        """See `collapse_of`."""
        return collapse_of(events)


def judge_events(events: Iterable[Mapping[str, Any]], **thresholds: float) -> CollapseJudgement:
    """Collapses and recoveries, from a run's `evaluation` events of raw weights.

    Evaluations that a resume superseded, or whose settings differ from the last one's, are ignored, as in training.
    """
    rows = []
    for event in same_settings([e for e in events if e["event"] == "evaluation" and not e.get("superseded")]):
        if event.get("weights") == "raw":
            scores = event.get("scores") or {}
            numbers = [math.nan if scores.get(n) is None else float(scores[n]) for n in ("spread_share", "fid")]
            rows.append((event["step"], *numbers))
    steps, spreads, fids = zip(*rows, strict=True) if rows else ((), (), ())
    return judge_collapse(steps, spreads, fids, **thresholds)


def collapse_of(events: Iterable[Mapping[str, Any]]) -> Finding | None:
    """The collapse of a run: the lasting one according to its evaluations, or otherwise the first one that it recovered
    from. Without evaluations: its first `collapse` event."""
    events = list(events)
    judged = judge_events(events)
    if judged.findings or judged.judged_until is not None:
        return judged.lasting or next(iter(judged.findings), None)
    for event in events:
        if event["event"] == "collapse" and not event.get("superseded"):
            onset = int(event.get("onset", event["step"]))
            return Finding("collapse", event["step"], onset, dict(event.get("details") or {}))
    return None


def same_settings(evaluations: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The `evaluation` events with the settings of the last one of raw weights, because others are not comparable.

    A branch copies its parent's evaluations, which may have had another reference or fewer samples. Events without
    settings (in a thinned record) count as equal.
    """
    raw = [settings for event in evaluations if event["weights"] == "raw" and (settings := settings_of(event))]
    last = raw[-1] if raw else {}
    return [event for event in evaluations if not last or settings_of(event) in ({}, last)]


def settings_of(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an `evaluation` event's scores, except the kind of weights; empty if none are recorded."""
    return {name: value for name, value in (evaluation.get("settings") or {}).items() if name != "weights"}
