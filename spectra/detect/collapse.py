"""The collapse of a generator, and its recovery, found online. Public as `spectra.detect.Collapse` and the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from spectra.detect.finding import Finding
from spectra.detect.thresholds import CollapseThresholds

REACH = 2
"""Evaluations to either side in the centred medians that date an onset: they keep the place of a step as it is."""


@dataclass(frozen=True)
class CollapseJudgement:
    """What a finished series of evaluations says.

    Attributes:
        findings: of the kinds "collapse" and "recovered", in turn.
        lasting: the first collapse that no recovery followed within `CollapseThresholds.lasting` evaluations after it
            could be said (nor by the end of the series, where that came sooner): the event of survival.
        judged_until: the last step at which an onset could still have been found by the end of the series. None: the
            series is too short to judge.
    """

    findings: list[Finding]
    lasting: Finding | None
    judged_until: int | None


@dataclass(frozen=True)
class _Evaluation:
    step: int
    spread: float
    fid: float


class Collapse:
    """The collapse of a generator, from evaluations of its own (raw) weights; and its recovery, if there is one.

    Evaluations are noisy, so each is evidence for or against, which adds up and never falls below nothing; a collapse
    is said when there is enough of it, by one of three rules:

    - "quality_lost": evidence is by how many doublings its FID lies beyond `fid_worse` times its best (a running
      median), so a deep fall is said after two evaluations, a shallow one after some more;
    - "modes_lost": once healthy, its spread is far below its best, and its FID is not at its best either;
    - "no_modes": its spread is next to nothing while its FID has long ceased to improve: it never got its modes, which
      a young generator's improving FID rules out.

    `onset` is the last evaluation at which all was well: its FID within `fid_worse` times the best and its spread above
    `spread_lost` times the best, both in itself and as the median of it and its neighbours on both sides. (Of
    "no_modes": the last one with a better FID, or with modes.) What lies before any evidence stands as it is, so an
    onset is never before `well_until`.

    After a collapse, once the evaluations at which all is well outnumber the others since by `patience`, there is a
    finding "recovered", whose onset is the first of the last unbroken ones. Then a collapse may follow again.

    Args:
        thresholds: fields of `spectra.detect.thresholds.CollapseThresholds`.

    Attributes:
        well_until: the last evaluation with no evidence of any collapse, which a state from before the onset may be
            kept by; None before the first one, and it stands still from the first doubt to the recovery.
    """

    def __init__(self, **thresholds: float) -> None:
        self.at = CollapseThresholds(**thresholds)  # type: ignore[arg-type]
        self.well_until: int | None = None
        self._past: list[_Evaluation] = []
        self._fids: list[float] = []
        self._spreads: list[float] = []
        self._length = self.at.fid_window
        self._median, self._best_fid, self._best_spread = math.nan, math.inf, 0.0
        self._marked_fid, self._since_better = math.inf, 0  # the last FID that was better by enough
        self._evidence = dict.fromkeys(("quality_lost", "modes_lost", "no_modes"), 0.0)
        self._begun = 0  # the place of the last evaluation without evidence
        self._collapsed, self._recoveries = False, 0
        self._well_again, self._again_since, self._well_before = 0, 0, False

    @property
    def evaluations(self) -> int:
        """How many of them told something."""
        return len(self._past)

    @property
    def judged_until(self) -> int | None:
        """The last evaluation after which an onset could have been found by now; None: there is none."""
        place = len(self._past) - 1 - self.at.latency
        return self._past[place].step if place >= self.at.fid_window - 1 else None

    def update(self, step: int, spread_share: float, fid: float) -> Finding | None:
        """One evaluation: `spread_share` of the real images' (1 is as real), a single `fid`. NaN: not known.

        An infinite FID is worse than any other; else what is not finite is left out.
        """
        fid = math.nan if fid == -math.inf else float(fid)
        spread = float(spread_share) if math.isfinite(spread_share) else math.nan
        if math.isnan(spread) and math.isnan(fid):
            return None
        now = _Evaluation(step, spread, fid)
        self._past.append(now)
        improved = self._refer(now)
        if self._collapsed:
            return self._recovery(now)
        for rule, evidence in self._weigh(now, improved).items():
            self._evidence[rule] = max(0.0, self._evidence[rule] + evidence)
        if not any(self._evidence.values()):
            self._begun, self.well_until = len(self._past) - 1, step
        for rule, enough in self._enough().items():
            if self._evidence[rule] >= enough:
                return self._fall(rule)
        return None

    def _refer(self, now: _Evaluation) -> bool:
        """Bring what the evaluation is compared with up to date; whether it made the running FID better by enough."""
        best = self._best_fid
        if not math.isnan(now.fid):
            self._fids.append(now.fid)
            length = max(self.at.fid_window, min(self.at.fid_window_late, len(self._fids) // self.at.fid_window))
            if length != self._length:  # the best of many medians is a lucky one, so they become those of more
                self._length, self._best_fid = length, math.inf
                for end in range(length, len(self._fids)):
                    self._best_fid = min(self._best_fid, median(self._fids[end - length : end]))
            if len(self._fids) >= length:
                self._median = median(self._fids[-length:])
                self._best_fid = min(self._best_fid, self._median)
        improved = self._median < self.at.better * self._marked_fid
        if improved:
            self._marked_fid = self._median
        self._since_better = 0 if improved else self._since_better + 1
        self._refer_spread(now, again=self._best_fid != best)
        return improved

    def _refer_spread(self, now: _Evaluation, *, again: bool) -> None:
        """A spread counts while the FID was good: of a generator that has learnt nothing it is the spread of noise."""
        if again:
            self._spreads, self._best_spread = [], 0.0
        for one in self._past if again else [now]:
            if not math.isnan(one.spread) and not self._fid_is_lost(one.fid):
                self._spreads.append(one.spread)
                if len(self._spreads) >= self.at.spread_window:
                    self._best_spread = max(self._best_spread, median(self._spreads[-self.at.spread_window :]))

    def _weigh(self, now: _Evaluation, improved: bool) -> dict[str, float]:
        """The evidence of one evaluation, by rule: positive for a collapse, negative against it."""
        quality = 0.0
        if not math.isnan(now.fid) and math.isfinite(self._best_fid):
            doublings = math.log2(max(now.fid, 1e-300) / (self.at.fid_worse * max(self._best_fid, 1e-300)))
            quality = min(max(doublings, -1.0), self.at.most_evidence)
        known = math.isfinite(self._best_fid)
        modes = 0.0
        if not math.isnan(now.spread):
            lost = self._best_spread >= self.at.healthy and self._spread_is_lost(now.spread)
            modes = 1.0 if lost and not (known and improved) else -1.0
        without = 1.0 if now.spread <= self.at.modeless and not (known and improved) else -math.inf
        without = 0.0 if math.isnan(now.spread) else without
        return {"quality_lost": quality, "modes_lost": modes, "no_modes": without}

    def _enough(self) -> dict[str, float]:
        """The evidence that a collapse takes, by rule: more of it for a generator that has recovered before."""
        often = min(1 + self._recoveries, 3)
        known = math.isfinite(self._best_fid)
        return {
            "quality_lost": self.at.patience * often,
            "modes_lost": self.at.patience * often,
            "no_modes": self.at.stale if known else self.at.modeless_alone,
        }

    def _fall(self, rule: str) -> Finding:
        self._collapsed, self._well_again, self._well_before = True, 0, False
        now = self._past[-1]
        place = self._begun if rule == "no_modes" else self._last_well()
        return Finding("collapse", now.step, self._past[place].step, {"rule": rule, **self._numbers(now)})

    def _recovery(self, now: _Evaluation) -> Finding | None:
        well = self._is_well(now.fid, now.spread) and not now.spread <= self.at.modeless
        if not (well and self._well_before):
            self._again_since = now.step
        self._well_before = well
        self._well_again = max(0, self._well_again + (1 if well else -1))
        if self._well_again < self.at.patience:
            return None
        self._collapsed = False
        self._recoveries += 1
        self._evidence = dict.fromkeys(self._evidence, 0.0)
        self._begun, self.well_until = len(self._past) - 1, now.step
        return Finding("recovered", now.step, self._again_since, self._numbers(now))

    def _last_well(self) -> int:
        """The place of the last evaluation at which all was well, in itself and among its neighbours."""
        last = len(self._past) - 1
        for place in range(last, self._begun, -1):
            reach = min(REACH, last - place, place)
            near = self._past[place - reach : place + reach + 1]
            fids = [e.fid for e in near if not math.isnan(e.fid)]
            spreads = [e.spread for e in near if not math.isnan(e.spread)]
            middle = [median(values) if values else math.nan for values in (fids, spreads)]
            one = self._past[place]
            if self._is_well(one.fid, one.spread) and self._is_well(*middle):
                return place
        return self._begun

    def _is_well(self, fid: float, spread: float) -> bool:
        return not self._fid_is_lost(fid) and not self._spread_is_lost(spread)

    def _fid_is_lost(self, fid: float) -> bool:
        return fid > self.at.fid_worse * self._best_fid

    def _spread_is_lost(self, spread: float) -> bool:
        return spread <= self.at.spread_lost * min(self._best_spread, self.at.full)

    def _numbers(self, now: _Evaluation) -> dict[str, Any]:
        """Of the evaluation itself, and the medians that it is judged against."""
        numbers = {
            "fid": now.fid,
            "fid_median": self._median,
            "best_fid_median": self._best_fid,
            "spread": now.spread,
            "best_spread": self._best_spread,
        }
        return {name: value for name, value in numbers.items() if math.isfinite(value)}


def judge_collapse(
    steps: Sequence[int], spread_share: Sequence[float], fid: Sequence[float], **thresholds: float
) -> CollapseJudgement:
    """`Collapse` over the whole series of a run's evaluations, and what that comes to."""
    detector = Collapse(**thresholds)
    found, places = [], []  # the place of a finding is the number of evaluations by when it was said
    for step, spread, one in zip(steps, spread_share, fid, strict=True):
        if finding := detector.update(int(step), float(spread), float(one)):
            found.append(finding)
            places.append(detector.evaluations)
    lasting = None
    for place, finding in enumerate(found):
        recovered = places[place + 1] if place + 1 < len(found) else math.inf
        if finding.kind == "collapse" and recovered - places[place] > detector.at.lasting:
            lasting = finding
            break
    return CollapseJudgement(found, lasting, detector.judged_until)


def collapse(
    steps: Sequence[int], spread_share: Sequence[float], fid: Sequence[float], **thresholds: float
) -> Finding | None:
    """The first collapse over the whole series of a run's evaluations, whether or not the generator recovered."""
    found = judge_collapse(steps, spread_share, fid, **thresholds).findings
    return found[0] if found else None
