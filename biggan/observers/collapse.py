"""The collapse of a generator's samples, and its recovery, found from its evaluations while it trains.

Public as `biggan.Collapse`, `biggan.judge_collapse` and the rest. The table named in the thresholds is that of
tests/campaigns/test_detectors.py: synthetic series whose answer is known. The recorded runs are those in
notebooks/data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from spectra.detect.finding import Finding

REACH = 2
"""Evaluations to either side in the centred medians that date an onset: they keep the place of a step as it is."""


@dataclass(frozen=True)
class CollapseThresholds:
    """Thresholds of `biggan.Collapse`. Spread is relative to the real images', so 1 means as varied as these."""

    fid_window: int = 5
    """Number of evaluations whose running median is the FID's level. Single FIDs jump by factors of 1.2 to 1.4, and up
    to
    8 in recorded runs, without any change in the pictures."""
    fid_window_late: int = 9
    """Upper limit of that number, which grows to a fifth of all evaluations, because the best of many medians of five
    is
    low by chance. In the table 8 % of healthy series of 160 evaluations were called collapsed with medians of five,
    and 1 % with this rule."""
    spread_window: int = 3
    """Number of evaluations per median of the spread; the best spread is the highest such median. Three exclude a
    single
    outlier."""
    healthy: float = 0.3
    """A generator that never reached this spread has not been healthy: runs that keep their modes stay at 0.65 to 0.85,
    and those that lose them early have passed 0.3 at most briefly."""
    full: float = 0.8
    """Spread above this counts as this: a young generator's noise spreads up to 1.6, and losing that is not a
    collapse."""
    spread_lost: float = 0.5
    """Largest share of its best spread that a collapsed generator has left. Healthy generators kept at least 0.75,
    those
    that lost modes ended at a tenth."""
    fid_worse: float = 2.0
    """Least ratio of FID to its best for a collapse that keeps its spread. In recorded branches that did not collapse,
    medians were temporarily up to 2.2 times their best; collapses reach 3 to 40 times."""
    patience: float = 2.5
    """Evidence needed for a collapse. Each evaluation with a lost spread adds 1; a FID that is too high adds its
    number of
    doublings (4 times the best adds 1). In the table 90 % of falls to 3 times the best are found within 5 or 6
    evaluations (to 10 times: 2), and no healthy series of 360 is called collapsed; with 2.2, one was."""
    most_evidence: float = 1.5
    """Most evidence from one evaluation. At least two are then needed: one outlier, however large, is not enough."""
    lasting: int = 15
    """Evaluations without recovery, after a collapse was found, that make it lasting. FIDs that swing by 1.5 to 4 times
    within 24 evaluations, the slowest of the table, are high for half of that; no dip of five was lasting."""
    latency: int = 5
    """Evaluations before the end of a series in which the beginning of a collapse may go unseen. In the table 90 % of
    the
    falls to 3 times the best are found within this number (70 % if evaluations are few), and all deep ones."""
    modeless: float = 0.15
    """Spread at which a generator draws about one picture per class, whatever its best spread was."""
    stale: int = 10
    """Evaluations without a better FID after which a generator without modes counts as collapsed, not just young."""
    better: float = 0.98
    """A FID counts as better if it is below this share of the best: a run that improves slowly is still learning."""
    modeless_alone: int = 20
    """If no FID is computed: number of evaluations without modes."""


@dataclass(frozen=True)
class CollapseJudgement:
    """The judgement of a finished series of evaluations.

    Attributes:
        findings: of the kinds "collapse" and "recovered", in turn.
        lasting: the event of survival: the first collapse without a recovery within `CollapseThresholds.lasting`
            evaluations after it was found (or up to the end of the series, if that is earlier).
        judged_until: the last step at which an onset would have been found by the end of the series. None: the series
            is too short to judge.
    """

    findings: list[Finding]
    lasting: Finding | None
    judged_until: int | None


@dataclass(frozen=True)
class _Evaluation:
    step: int
    spread: float
    fid: float


class _Best:
    """The reference for evaluations: the best FID and the best spread of the generator so far.

    Attributes:
        fid: the lowest running median of the FID; Inf until there is one.
        fid_now: the running median of the FID now; NaN until there is one.
        spread: the highest running median of the spread.
        improved: whether the last evaluation made `fid_now` better by enough.
    """

    def __init__(self, at: CollapseThresholds) -> None:
        self.at = at
        self.fid, self.fid_now, self.spread, self.improved = math.inf, math.nan, 0.0, False
        self._fids: list[float] = []
        self._spreads: list[float] = []
        self._length = at.fid_window
        self._marked_fid = math.inf  # the last FID that was better by enough

    @property
    def has_fid(self) -> bool:
        """Whether there is a FID to compare with."""
        return math.isfinite(self.fid)

    def update(self, past: Sequence[_Evaluation]) -> None:
        """Take the last evaluation of `past`."""
        now, fid = past[-1], self.fid
        if not math.isnan(now.fid):
            self._take_fid(now.fid)
        self.improved = self.fid_now < self.at.better * self._marked_fid
        if self.improved:
            self._marked_fid = self.fid_now
        if self.fid == fid:
            self._take_spread(now)
            return
        self._spreads, self.spread = [], 0.0  # a new best FID starts a new list of spreads
        for one in past:
            self._take_spread(one)

    def _take_fid(self, fid: float) -> None:
        self._fids.append(fid)
        length = max(self.at.fid_window, min(self.at.fid_window_late, len(self._fids) // self.at.fid_window))
        if length != self._length:  # the best of many medians is low by chance, so medians are taken over more
            self._length, self.fid = length, math.inf
            for end in range(length, len(self._fids)):
                self.fid = min(self.fid, median(self._fids[end - length : end]))
        if len(self._fids) >= length:
            self.fid_now = median(self._fids[-length:])
            self.fid = min(self.fid, self.fid_now)

    def _take_spread(self, one: _Evaluation) -> None:
        """A spread counts only while the FID is good: before the generator has learnt, it is the spread of noise."""
        if math.isnan(one.spread) or self.fid_is_lost(one.fid):
            return
        self._spreads.append(one.spread)
        if len(self._spreads) >= self.at.spread_window:
            self.spread = max(self.spread, median(self._spreads[-self.at.spread_window :]))

    def fid_is_lost(self, fid: float) -> bool:
        """Whether a FID is too far above the best."""
        return fid > self.at.fid_worse * self.fid

    def spread_is_lost(self, spread: float) -> bool:
        """Whether a spread is too far below the best."""
        return spread <= self.at.spread_lost * min(self.spread, self.at.full)

    def is_well(self, fid: float, spread: float) -> bool:
        """Whether neither is lost."""
        return not self.fid_is_lost(fid) and not self.spread_is_lost(spread)


class _Recovery:
    """Whether a collapsed generator has recovered: since which step it is healthy, and by how many evaluations."""

    def __init__(self) -> None:
        self.since, self.balance = 0, 0
        self._well_before = False

    def update(self, step: int, well: bool) -> None:
        """One evaluation."""
        if not (well and self._well_before):
            self.since = step
        self._well_before = well
        self.balance = max(0, self.balance + (1 if well else -1))


RULES = ("quality_lost", "modes_lost", "no_modes")


class Collapse:
    """The collapse of a generator, from evaluations of its own (raw) weights; and its recovery, if there is one.

    Evaluations are noisy. Each is evidence for or against a collapse; evidence adds up and never falls below zero. A
    collapse is found when there is enough of it, by one of three rules:

    - "quality_lost": the evidence is the number of doublings from `fid_worse` times its best FID (a running median) to
      its FID, so a deep fall is found after two evaluations, a shallow one after some more;
    - "modes_lost": a generator that was healthy has a spread far below its best, and its FID is not at its best either;
    - "no_modes": its spread is close to zero and its FID stopped improving long ago: it never got its modes. (The FID
      of a generator that is just young improves.)

    `onset` is the last healthy evaluation: its FID within `fid_worse` times the best and its spread above
    `spread_lost` times the best, both in itself and as the median of it and its neighbours on both sides. (Of
    "no_modes": the last one with a better FID, or with modes.) Evaluations before the first evidence are not
    judged again, so an onset is never before `well_until`.

    After a collapse, a finding "recovered" is given when the healthy evaluations since then outnumber the others by
    `patience`. Its onset is the first of the last unbroken healthy ones. After that a collapse can be found again.

    Args:
        thresholds: fields of `CollapseThresholds`.

    Attributes:
        well_until: the last evaluation with no evidence of any collapse: use it to keep a
            state from before the onset. None before the first one; it does not move from the first doubt to recovery.
    """

    def __init__(self, **thresholds: float) -> None:
        self.at = CollapseThresholds(**thresholds)  # type: ignore[arg-type]
        self.well_until: int | None = None
        self._past: list[_Evaluation] = []
        self._best = _Best(self.at)
        self._evidence = dict.fromkeys(RULES, 0.0)
        self._begun = 0  # the place of the last evaluation without evidence
        self._recovery: _Recovery | None = None  # while it is collapsed
        self._recoveries = 0

    @property
    def evaluations(self) -> int:
        """The number of evaluations with a usable score."""
        return len(self._past)

    @property
    def judged_until(self) -> int | None:
        """The last evaluation after which an onset would have been found by now; None if there is none."""
        place = len(self._past) - 1 - self.at.latency
        return self._past[place].step if place >= self.at.fid_window - 1 else None

    def update(self, step: int, spread_share: float, fid: float) -> Finding | None:
        """One evaluation: `spread_share` of the real images' (1 is as real), a single `fid`. NaN: not known.

        An infinite FID is worse than any other. Any other value that is not finite is ignored.
        """
        fid = math.nan if fid == -math.inf else float(fid)
        spread = float(spread_share) if math.isfinite(spread_share) else math.nan
        if math.isnan(spread) and math.isnan(fid):
            return None
        now = _Evaluation(step, spread, fid)
        self._past.append(now)
        self._best.update(self._past)
        return self._watch(now) if self._recovery is None else self._recover(now, self._recovery)

    def _watch(self, now: _Evaluation) -> Finding | None:
        """An evaluation of a generator that has not collapsed."""
        evidence = {
            "quality_lost": self._of_quality(now.fid),
            "modes_lost": self._of_modes(now.spread),
            "no_modes": self._of_no_modes(now.spread),
        }
        self._evidence = {rule: max(0.0, self._evidence[rule] + evidence[rule]) for rule in RULES}
        if not any(self._evidence.values()):
            self._begun, self.well_until = len(self._past) - 1, now.step
        for rule, enough in self._enough().items():
            if self._evidence[rule] >= enough:
                self._recovery = _Recovery()
                place = self._begun if rule == "no_modes" else self._last_well()
                return Finding("collapse", now.step, self._past[place].step, {"rule": rule, **self._numbers(now)})
        return None

    def _recover(self, now: _Evaluation, recovery: _Recovery) -> Finding | None:
        """An evaluation of a generator that has collapsed."""
        recovery.update(now.step, self._best.is_well(now.fid, now.spread) and not now.spread <= self.at.modeless)
        if recovery.balance < self.at.patience:
            return None
        self._recovery = None
        self._recoveries += 1
        self._evidence = dict.fromkeys(RULES, 0.0)
        self._begun, self.well_until = len(self._past) - 1, now.step
        return Finding("recovered", now.step, recovery.since, self._numbers(now))

    # The evidence of one evaluation, by rule: positive for a collapse, negative against it.

    def _of_quality(self, fid: float) -> float:
        if math.isnan(fid) or not self._best.has_fid:
            return 0.0
        doublings = math.log2(max(fid, 1e-300) / (self.at.fid_worse * max(self._best.fid, 1e-300)))
        return min(max(doublings, -1.0), self.at.most_evidence)

    def _of_modes(self, spread: float) -> float:
        if math.isnan(spread):
            return 0.0
        lost = self._best.spread >= self.at.healthy and self._best.spread_is_lost(spread)
        return 1.0 if lost and not self._improves else -1.0

    def _of_no_modes(self, spread: float) -> float:
        if math.isnan(spread):
            return 0.0
        return 1.0 if spread <= self.at.modeless and not self._improves else -math.inf

    @property
    def _improves(self) -> bool:
        return self._best.has_fid and self._best.improved

    def _enough(self) -> dict[str, float]:
        """The evidence that a collapse needs, by rule; a generator that has recovered before needs more."""
        often = min(1 + self._recoveries, 3)
        return {
            "quality_lost": self.at.patience * often,
            "modes_lost": self.at.patience * often,
            "no_modes": self.at.stale if self._best.has_fid else self.at.modeless_alone,
        }

    def _last_well(self) -> int:
        """The place of the last healthy evaluation, by itself and as the median with its neighbours."""
        last = len(self._past) - 1
        for place in range(last, self._begun, -1):
            reach = min(REACH, last - place, place)
            near = self._past[place - reach : place + reach + 1]
            fids = [e.fid for e in near if not math.isnan(e.fid)]
            spreads = [e.spread for e in near if not math.isnan(e.spread)]
            middle = [median(values) if values else math.nan for values in (fids, spreads)]
            one = self._past[place]
            if self._best.is_well(one.fid, one.spread) and self._best.is_well(*middle):
                return place
        return self._begun

    def _numbers(self, now: _Evaluation) -> dict[str, Any]:
        """Of the evaluation itself, and the medians that it is judged against."""
        numbers = {
            "fid": now.fid,
            "fid_median": self._best.fid_now,
            "best_fid_median": self._best.fid,
            "spread": now.spread,
            "best_spread": self._best.spread,
        }
        return {name: value for name, value in numbers.items() if math.isfinite(value)}


def judge_collapse(
    steps: Sequence[int], spread_share: Sequence[float], fid: Sequence[float], **thresholds: float
) -> CollapseJudgement:
    """`Collapse` over the whole series of a run's evaluations, and the resulting judgement."""
    detector = Collapse(**thresholds)
    found, places = [], []  # the place of a finding is the number of evaluations when it was found
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
