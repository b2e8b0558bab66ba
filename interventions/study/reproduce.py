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

from biggan.errors import UserError
from interventions.study.books import Books
from interventions.study.branching import Added, branching_places, check_adopted, is_being_trained, make_base
from interventions.study.cost import Rates, recorded_rate, work_factor
from interventions.study.expand import BRANCHING_POINT, Base, Job, Layout, Resolved
from interventions.study.growth import check_study, grow_plan, load_study, study_facts
from interventions.study.launch import Launch, Outcome, Start, lock_plan
from interventions.study.plan import CONTROL, PLAIN
from interventions.study.priority import StudyEntry
from interventions.study.worker import has_ended
from spectra.record.files import make_folder

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
NEAR_SHARE = 0.8
"""A checkpoint before this share of the branching place is too early: the base run is trained up to the place again."""


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
    added: Added | None = None
    """A recorded study whose runs are not run again."""
    record: Path | None = None
    """Where the thinned copy is kept."""

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
        base = known.get(name) or Base(name, "", "", 0, f"{name}/{PLAIN}", seed)
        bases.append(base)
        jobs += _to_run(study, layouts.scratch(seed))
        if base.checkpoint:
            jobs += _to_run(study, layouts.branches(seed, base.step))
    title = f"The claims on {Path(study.preset).stem}"
    notes = tuple(dict.fromkeys(layouts.notes))
    return Resolved("reproduce", title, tuple(bases), tuple(jobs), dict(BRANCH_SETTINGS), notes=notes, study=facts)


def _to_run(study: Study, jobs: Iterable[Job]) -> list[Job]:
    """The jobs that the recorded study has not."""
    return [job for job in jobs if study.added is None or job.key not in study.added.done]


def planned_jobs(study: Study, resolved: Resolved, layouts: Layouts) -> list[Job]:
    """All jobs of the study, also the branches of base runs that have not ended, in the order in which they run."""
    jobs = list(resolved.jobs)
    for seed, base in zip(study.base_seeds, resolved.bases, strict=True):
        if not base.checkpoint:
            branches = _to_run(study, layouts.branches(seed, 0))
            jobs += branches
            if branches and study.added is not None and (before := study.added.bases.get(base.name)) is not None:
                jobs.append(Job(base.name, BRANCHING_POINT, "scratch", before.step))
    return sorted(jobs, key=Ranks(study).of)


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
        if job.entry == BRANCHING_POINT:
            return 0, 1, base
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
    make_folder(study.folder)
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
        added = None if self.study.added is None else self.study.added.folder
        self.books = Books(self.folder, self.study.record, added)
        self._again: dict[str, Job] = {}
        self._locked: dict[str, float] = {}

    def run(self) -> Outcome:
        """As `Launch.run`."""
        self._branch_bases()
        try:
            return super().run()
        finally:
            self.books.close()

    def _check_parents(self) -> None:
        from interventions.study.worker import load_parent

        needed = {job.base for job in self.waiting if job.kind != "scratch"}
        for base in self.resolved.bases:
            if base.name in needed and base.checkpoint:
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
        if self.rates is not None and job.key not in self.outcome.failed:
            self.rates.learn(job.entry, recorded_rate(self.folder / job.key))
        if job.entry in (PLAIN, BRANCHING_POINT):
            self._branch_bases()
        self._keep_books(job)

    def _keep_books(self, job: Job) -> None:
        """After an entry's last run: write the page and the thinned copy, in another process."""
        entry = [one.key for one in self.waiting if one.entry == job.entry]
        running = [key for key in self.running if self.resolved.job(key).entry == job.entry]
        if not entry and not running and job.entry != BRANCHING_POINT:
            self.books.update()

    def _branch_bases(self) -> None:
        """Find the branching checkpoints of base runs, and put their branches into the queue."""
        unknown = {base.name: base for base in self.resolved.bases if not base.checkpoint}
        if not unknown:
            return
        runs = {name: self.folder / name / PLAIN for name in unknown}
        added = self.study.added.bases if self.study.added is not None else {}
        ended = {name: run for name, run in runs.items() if has_ended(run) and name not in added}
        over = all(name in (ended | dict(added)) or f"{name}/{PLAIN}" in self.outcome.failed for name in runs)
        known = [base.step for base in self.resolved.bases if base.checkpoint]
        places, notes = branching_places(ended, self.study.before, self.study.config.steps, known, all_ended=over)
        places |= {name: base.step for name, base in added.items() if name in unknown and self._has_branches(name)}
        made: dict[str, Base] = {}
        for name, place in places.items():
            try:
                made[name] = self._branched(unknown[name], place, exact=name in added)
            except UserError as error:
                notes.append(str(error))
        self._grow(made, notes)

    def _has_branches(self, name: str) -> bool:
        """Whether branches of a base run of the recorded study are still to be run."""
        seed = next(seed for seed in self.study.base_seeds if self.study.base_name(seed) == name)
        return bool(_to_run(self.study, self.layouts.branches(seed, 0)))

    def _branched(self, base: Base, place: int, *, exact: bool) -> Base:
        """The base run with its checkpoint; or with the step alone, if it must be trained up to it again.

        Raises `UserError` where that failed, or led elsewhere than in the recorded study.
        """
        least = place if exact else round(NEAR_SHARE * place)
        key = f"{base.name}/{BRANCHING_POINT}"
        again = self.folder / key
        found = None
        if has_ended(self.folder / base.name / PLAIN):
            found = make_base(base, self.folder / base.name / PLAIN, place, at_least=max(least, 1))
        if found is None and has_ended(again):
            found = make_base(base, again, place)
        if found is None and key in self.outcome.failed:
            raise UserError(f"{base.name} could not be trained again up to step {place}, so it is not branched")
        if found is None:
            return dataclasses.replace(base, step=place)
        if exact and self.study.added is not None:
            self.study.added.check_state(found)
        return found

    def _grow(self, made: dict[str, Base], notes: Sequence[str]) -> None:
        new: list[Job] = []
        for seed in self.study.base_seeds:
            base = made.get(self.study.base_name(seed))
            if base is not None and base.checkpoint:
                new += _to_run(self.study, self.layouts.branches(seed, base.step))
            elif base is not None and base.name not in self._again:
                self._again[base.name] = Job(base.name, BRANCHING_POINT, "scratch", base.step)
                self.waiting.append(self._again[base.name])
        bases = tuple(made.get(base.name, base) for base in self.resolved.bases)
        fresh = [note for note in dict.fromkeys(notes) if note not in self.resolved.notes]
        all_notes = tuple(dict.fromkeys([*self.resolved.notes, *fresh, *self.layouts.notes]))
        self.resolved = dataclasses.replace(
            self.resolved, bases=bases, jobs=(*self.resolved.jobs, *new), notes=all_notes
        )
        grow_plan(self.resolved, self.folder)
        for job in new:
            if has_ended(self.folder / job.key):
                self.outcome.finished.append(job.key)
            else:
                self.waiting.append(job)
        self.display.know(self.resolved, self._again.values())
        for note in fresh:
            self.display.say(note)
