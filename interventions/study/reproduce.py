"""A study that trains its own base runs, branches them before their collapse, and runs every entry on all of them.

One queue: base runs first; then the unchanged branches; then entry by entry, in the order of `study_entries`, each on
all base runs. Branches of a base run join the queue when it has ended and its branching place is known.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interventions.study.branching import branching_places, check_adopted, is_being_trained, make_base
from interventions.study.cost import Rates, work_factor
from interventions.study.expand import Base, Job, Layout, Resolved
from interventions.study.growth import check_study, grow_plan, load_study, study_facts
from interventions.study.launch import Launch, Outcome, Start, lock_plan
from interventions.study.plan import CONTROL, PLAIN
from interventions.study.priority import StudyEntry
from interventions.study.worker import has_ended

if TYPE_CHECKING:
    from biggan.config import Config

BRANCH_SETTINGS = {
    "checkpoint.ring_every": 0,
    "checkpoint.keep": 1,
    "checkpoint.best": False,
    "tensorboard.every": 0,
}
"""Fields of all runs but the base runs. Nothing is branched from them, so they keep only what a resume needs."""

LOCK_POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Study:
    """What a study consists of."""

    folder: Path
    preset: str
    config: Config
    """The preset's; each base run has another seed."""
    base_seeds: tuple[int, ...]
    entries: tuple[StudyEntry, ...]
    """In the order in which they run."""
    branch_steps: int
    before: float
    """How far before the onset a base run is branched: steps, or, if below 1, a share of the onset."""
    seeds: int = 2
    """Further seeds of each unchanged branch."""

    def base_name(self, seed: int) -> str:
        """The name of a base run."""
        return f"seed-{seed}"

    def config_of(self, seed: int) -> Config:
        """The configuration of a base run."""
        return dataclasses.replace(self.config, seed=seed)

    def plain(self, seed: int) -> Job:
        """The base run itself."""
        return Job(self.base_name(seed), PLAIN, "scratch", self.config.steps)


def default_branch_steps(config: Config) -> int:
    """A quarter of the run, in whole evaluations."""
    every = config.eval.every or 1
    return max(round(config.steps / 4 / every + 1e-9), 1) * every


@dataclass
class Layouts:
    """The jobs of a study. Each entry is laid out and checked once: base runs differ only in their seed."""

    study: Study
    notes: list[str] = field(default_factory=list)
    """Which entries are left out, and why."""

    def scratch(self, seed: int) -> list[Job]:
        """The base run, and the runs from scratch with its seed."""
        jobs = [job for job in self._template if job.kind == "scratch"]
        return [self.study.plain(seed), *self._of_base(jobs, seed, 0)]

    def branches(self, seed: int, step: int) -> list[Job]:
        """The branches of a base run from this step on."""
        layout = Layout(self.study.config_of(seed), self.study.base_name(seed), self.study.branch_steps, 0)
        controls = self._of_base(layout.controls(self.study.seeds), seed, step)
        return [*controls, *self._of_base([job for job in self._template if job.kind != "scratch"], seed, step)]

    @cached_property
    def _template(self) -> list[Job]:
        """Every entry's job, as if the branching step was 0."""
        study = self.study
        layout = Layout(study.config, "", study.branch_steps, study.config.steps)
        found: list[Job] = []
        for one in study.entries:
            job, why = layout.job_or_reason(one.entry, found, lenient=True)
            if job is None:
                self.notes.append(f"{one.name} ({one.plans[0]}) is skipped: {why}")
            else:
                found.append(job)
        return found

    def _of_base(self, jobs: Iterable[Job], seed: int, step: int) -> list[Job]:
        def later(change: dict[str, Any]) -> dict[str, Any]:
            until = change["until"]
            return {**change, "from": change["from"] + step, "until": None if until is None else until + step}

        name = self.study.base_name(seed)
        return [dataclasses.replace(job, base=name, changes=tuple(map(later, job.changes))) for job in jobs]

    def factors(self) -> dict[str, float]:
        """How long a step of each entry takes, in steps of the base run."""
        from interventions.changes import with_fields

        factors = {}
        for job in self._template:
            config = self.study.config
            for timed in job.timed():
                config = with_fields(config, timed.change.fields(config))
            factors[job.entry] = work_factor(self.study.config, config)
        return factors


def open_study(study: Study, layouts: Layouts) -> Resolved:
    """The study's jobs as far as they are known. Nothing is written.

    Base runs that are trained already are adopted. Raises `UserError` for one of another configuration, and where the
    folder holds another study.
    """
    facts = study_facts(study.preset, study.config, study.branch_steps, study.before)
    before = load_study(study.folder)
    if before is not None:
        assert before.study is not None
        check_study(before.study, facts, study.folder)
    known = {base.name: base for base in before.bases} if before is not None else {}
    bases: list[Base] = []
    jobs: list[Job] = []
    for seed in study.base_seeds:
        name = study.base_name(seed)
        run = study.folder / name / PLAIN
        if (run / "config.yaml").is_file():
            check_adopted(run, study.config_of(seed))
        base = known.get(name) or Base(name, "", "", 0, str(run.resolve()), seed)
        bases.append(base)
        jobs += layouts.scratch(seed)
        if base.checkpoint:
            jobs += layouts.branches(seed, base.step)
    title = f"The claims on {Path(study.preset).stem}"
    notes = tuple(dict.fromkeys(layouts.notes))
    return Resolved("reproduce", title, tuple(bases), tuple(jobs), dict(BRANCH_SETTINGS), notes=notes, study=facts)


def planned_jobs(study: Study, resolved: Resolved, layouts: Layouts) -> list[Job]:
    """All jobs of the study, also the branches of base runs that have not ended, in the order in which they run."""
    unknown = [seed for seed in study.base_seeds if not _base(resolved, study.base_name(seed)).checkpoint]
    jobs = [*resolved.jobs, *(job for seed in unknown for job in layouts.branches(seed, 0))]
    return sorted(jobs, key=Ranks(study).of)


def _base(resolved: Resolved, name: str) -> Base:
    return next(base for base in resolved.bases if base.name == name)


class Ranks:
    """The order of a study's jobs."""

    def __init__(self, study: Study) -> None:
        self._base = {study.base_name(seed): number for number, seed in enumerate(study.base_seeds)}
        self._entry = {one.name: number for number, one in enumerate(study.entries)}

    def of(self, job: Job) -> tuple[int, int, int]:
        """The smaller, the earlier."""
        base = self._base[job.base]
        if job.entry == PLAIN:
            return 0, 0, base
        if job.entry == CONTROL:
            return 1, job.seed or 0, base
        return 2, self._entry[job.entry], base


def run_study(
    layouts: Layouts,
    start: Start,
    jobs: int,
    *,
    rates: Rates | None = None,
    budget: float | None = None,
    quiet: bool = False,
) -> StudyLaunch:
    """Run the study, `jobs` runs at a time, for `budget` seconds at most by the estimate of `rates`.

    Raises `UserError` as `open_study`, and where another process runs it.
    """
    study = layouts.study
    study.folder.mkdir(parents=True, exist_ok=True)
    with lock_plan(study.folder):
        resolved = open_study(study, layouts)
        grow_plan(resolved, study.folder)
        launched = StudyLaunch(layouts, resolved, start, jobs, rates=rates, budget=budget, quiet=quiet)
        launched.run()
    return launched


class StudyLaunch(Launch):
    """One launch of a study: the queue in the study's order, which grows as base runs end."""

    outcome: Outcome

    def __init__(
        self,
        layouts: Layouts,
        resolved: Resolved,
        start: Start,
        jobs: int,
        *,
        rates: Rates | None,
        budget: float | None,
        quiet: bool,
    ) -> None:
        self.layouts, self.study, self.rates = layouts, layouts.study, rates
        super().__init__(resolved, self.study.folder, start, jobs, quiet)
        self.deadline = None if budget is None else time.monotonic() + budget
        self.left: list[Job] = []
        """Jobs that would not have ended within the budget."""
        self.ranks = Ranks(self.study)
        self._locked: dict[str, float] = {}

    def run(self) -> Outcome:
        """As `Launch.run`."""
        self._branch_bases()
        return super().run()

    def _check_parents(self) -> None:
        from interventions.study.worker import load_parent

        needed = {job.base for job in self.waiting if job.kind != "scratch"}
        for base in self.resolved.bases:
            if base.name in needed:
                load_parent(base)

    def _next(self) -> Job | None:
        for job in sorted(self.waiting, key=self.ranks.of):
            if self._is_elsewhere(job):
                continue
            self.waiting.remove(job)
            if not self._fits(job):
                self.left.append(job)
                continue
            return job
        return None

    def _fits(self, job: Job) -> bool:
        """Whether the job would end before the deadline."""
        if self.deadline is None or self.rates is None:
            return True
        return time.monotonic() + self.rates.seconds(job) <= self.deadline

    def _is_elsewhere(self, job: Job) -> bool:
        """Whether another process, such as `biggan-train`, is training this base run; asked every few seconds."""
        if job.entry != PLAIN:
            return False
        now = time.monotonic()
        if now < self._locked.get(job.key, 0.0):
            return True
        elsewhere = is_being_trained(self.folder / job.key)
        if elsewhere and job.key not in self._locked:
            self.display.say(f"{job.key} is being trained by another process; its branches wait for its end")
        self._locked[job.key] = now + LOCK_POLL_SECONDS if elsewhere else 0.0
        return elsewhere

    def _after(self, job: Job) -> None:
        if job.entry == PLAIN:
            self._branch_bases()

    def _branch_bases(self) -> None:
        """Find the branching checkpoints of base runs that have ended, and put their branches into the queue."""
        unknown = [base for base in self.resolved.bases if not base.checkpoint]
        runs = {base.name: self.folder / base.name / PLAIN for base in unknown}
        ended = {name: run for name, run in runs.items() if has_ended(run)}
        if not ended:
            return
        over = all(name in ended or f"{name}/{PLAIN}" in self.outcome.failed for name in runs)
        known = [base.step for base in self.resolved.bases if base.checkpoint]
        places, notes = branching_places(ended, self.study.before, self.study.config.steps, known, all_ended=over)
        made = {}
        for base in unknown:
            if base.name not in places:
                continue
            if (branched := make_base(base, runs[base.name], places[base.name])) is not None:
                made[base.name] = branched
            elif (note := _unbranched(base.name, places[base.name])) not in self.resolved.notes:
                notes.append(note)
        self._grow(made, notes)

    def _grow(self, made: dict[str, Base], notes: Sequence[str]) -> None:
        new: list[Job] = []
        for seed in self.study.base_seeds:
            if (base := made.get(self.study.base_name(seed))) is not None:
                new += self.layouts.branches(seed, base.step)
        bases = tuple(made.get(base.name, base) for base in self.resolved.bases)
        all_notes = tuple(dict.fromkeys([*self.resolved.notes, *notes, *self.layouts.notes]))
        self.resolved = dataclasses.replace(
            self.resolved, bases=bases, jobs=(*self.resolved.jobs, *new), notes=all_notes
        )
        grow_plan(self.resolved, self.folder)
        for job in new:
            if has_ended(self.folder / job.key):
                self.outcome.finished.append(job.key)
            else:
                self.waiting.append(job)
        self.display.know(self.resolved)
        for note in notes:
            self.display.say(note)


def _unbranched(name: str, place: int) -> str:
    return f"{name} has no checkpoint at or before step {place}, so it is not branched"
