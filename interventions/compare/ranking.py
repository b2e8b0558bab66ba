"""Ranks the branches of a rescue against the collapsed run, and against its unchanged continuation under another
seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interventions.compare.collect import failures
from interventions.compare.outcome import MEDIAN_OF, RunOutcome, read_outcome, recorded_scores, score_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from interventions.compare.measures import Numbers
    from interventions.study.expand import Job
    from interventions.study.rescue import Rescue

_UNCHANGED, _OTHER_SEED = "unchanged", "unchanged, another seed"


@dataclass(frozen=True)
class RankedBranch:
    """One branch of a rescue. Scores are of raw weights; NaN where they are not known, or not finite."""

    recipe: str
    """In plain words: the entry's name without hyphens."""
    key: str | None
    """Its place in the rescue's directory; None: the collapsed run itself."""
    survived: bool | None
    """Whether it did not collapse, although a collapse at or before the old onset would be visible; None: not known."""
    collapse: int | None
    """The onset of its collapse, a step."""
    seen_until: int | None
    """The last step at which the beginning of a collapse would be visible."""
    best_fid: float = math.nan
    """The lowest running median of five FIDs after the branching point."""
    last_fid: float = math.nan
    """The last such median."""
    last_spread: float = math.nan
    """The last spread within classes, relative to the real images'."""
    state: str = "finished"
    """"finished", "stopped" (at its collapse, or by another alarm), "not begun", "not finished" or "failed"."""

    @property
    def is_unchanged(self) -> bool:
        """Whether nothing, or only the seed, was changed."""
        return self.recipe.startswith(_UNCHANGED)

    @property
    def has_begun(self) -> bool:
        """Whether it has numbers; those that are NaN then are not finite."""
        return self.state not in ("not begun", "failed")

    @property
    def order(self) -> tuple[int, float, float]:
        """Survivors first, by their last FID; then what is not known; then the collapsed, the latest first."""
        group = {True: 0, None: 1, False: 2}[self.survived] if self.has_begun else 3
        later = -float(self.collapse or 0) if group == 2 else 0.0
        return group, later, self.last_fid if math.isfinite(self.last_fid) else math.inf


@dataclass
class Ranking:
    """The branches of a rescue, the best first."""

    rows: list[RankedBranch]
    onset: int
    begin: int
    end: int
    healthy_fid: float
    """The collapsed run's best running median of five FIDs up to its onset."""
    notes: list[str] = field(default_factory=list)

    @property
    def recipes(self) -> list[RankedBranch]:
        """The rows of changed branches."""
        return [row for row in self.rows if not row.is_unchanged]

    @property
    def other_seeds(self) -> list[RankedBranch]:
        """The rows of unchanged branches under other seeds."""
        return [row for row in self.rows if row.is_unchanged and row.key is not None]

    @property
    def winner(self) -> RankedBranch | None:
        """The survivor with the lowest last FID, which may be unchanged under another seed; None: nothing survived, or
        no survivor has a finite FID."""
        first = self.rows[0]
        return first if first.survived and math.isfinite(first.last_fid) else None

    def cost(self, fid: float) -> float:
        """A FID relative to the best that the run had while it was healthy: 1 is no cost."""
        return fid / self.healthy_fid if self.healthy_fid else math.nan

    def verdict(self) -> str:
        """What the ranking shows, in one or two sentences."""
        survived = [row for row in self.recipes if row.survived]
        unknown = [row for row in self.rows if row.survived is None and row.key is not None]
        text = f"{len(survived)} of {len(self.recipes)} recipes survived"
        text += f" ({len(unknown)} branches are not judged)" if unknown else ""
        seeds = {row.survived for row in self.other_seeds}
        if True in seeds:
            text += (
                ". So did the unchanged run under another seed: other noise may be enough, and this does not show that "
                "a recipe was needed."
            )
        elif False in seeds:
            text += "; unchanged under another seed the run collapsed again."
        else:
            text += "; how the run fares unchanged under another seed is not known."
        return text if self.winner or unknown else f"{text} Nothing rescued the run from step {self.begin}."

    def blind_after(self) -> int | None:
        """The last step up to which the beginning of a collapse would be visible in every survivor."""
        return min((row.seen_until for row in self.rows if row.survived and row.seen_until is not None), default=None)

    def as_json(self) -> dict[str, Any]:
        """Plain values; NaN and Inf as texts, as in events."""
        from biggan.observers.evaluation import to_json

        rows = [vars(row) | {"best_cost": self.cost(row.best_fid), "last_cost": self.cost(row.last_fid)}
                for row in self.rows]  # fmt: skip
        facts = {"onset": self.onset, "begin": self.begin, "end": self.end, "healthy_fid": self.healthy_fid}
        winner = None if self.winner is None else self.winner.recipe
        return to_json({**facts, "winner": winner, "verdict": self.verdict(), "rows": rows, "notes": self.notes})


def rank_rescue(rescue: Rescue, folder: Path) -> Ranking:
    """The ranking of the branches in `folder`, finished or not."""
    import spectra

    scored = recorded_scores(spectra.load(rescue.run)["events"])
    healthy = score_numbers([one for one in scored if one["step"] <= rescue.onset])
    after = [one for one in scored if rescue.begin < one["step"] <= rescue.end]
    before = RankedBranch(_UNCHANGED, None, False, rescue.onset, None, *_scores(score_numbers(after)))
    failed = failures(folder)
    outcomes: dict[str, RunOutcome] = {}
    for job in rescue.resolved.jobs:
        if (folder / job.key / "events.jsonl").is_file():
            outcomes[job.key] = read_outcome(folder / job.key, rescue.begin)
    rows = [ranked(job, outcomes.get(job.key), rescue.onset, failed.get(job.key)) for job in rescue.resolved.jobs]
    return make_ranking(rescue, [before, *rows], healthy, [*rescue.resolved.notes])


def make_ranking(rescue: Rescue, rows: list[RankedBranch], healthy: Numbers, notes: list[str]) -> Ranking:
    """The rows in order."""
    fid = healthy[f"best_fid_raw_median{MEDIAN_OF}"]
    ordered = sorted(rows, key=lambda row: row.order)
    return Ranking(ordered, rescue.onset, rescue.begin, rescue.end, math.nan if fid is None else fid, notes)


def ranked(job: Job, outcome: RunOutcome | None, onset: int, failure: str | None = None) -> RankedBranch:
    """The row of a job with this outcome (None: it has not begun), for a parent that collapsed at `onset`.

    A branch whose numbers stopped being finite has collapsed. One that ended before a collapse at the old onset would
    be visible is not judged.
    """
    words = _OTHER_SEED if job.kind == "seed" else job.entry.replace("-", " ")
    if job.kind == "seed" and job.seed != 1:
        words += f" ({job.seed})"
    if outcome is None:
        return RankedBranch(words, job.key, None, None, None, state="failed" if failure else "not begun")
    state = outcome.ended if outcome.done and outcome.ended else "failed" if failure else "not finished"
    collapsed = outcome.collapse is not None or outcome.collapsed_before
    is_seen = outcome.ended == "finished" and outcome.judged_until is not None and outcome.judged_until >= onset
    survived = False if collapsed else True if is_seen else None
    numbers = _scores(outcome.numbers)
    return RankedBranch(words, job.key, survived, outcome.collapse, outcome.judged_until, *numbers, state)


def _scores(numbers: Mapping[str, float | None]) -> tuple[float, float, float]:
    """The best and the last FID, and the last spread."""
    names = (f"best_fid_raw_median{MEDIAN_OF}", f"final_fid_raw_median{MEDIAN_OF}", "last_spread_raw")
    best, last, spread = (math.nan if (value := numbers.get(name)) is None else value for name in names)
    return best, last, spread
