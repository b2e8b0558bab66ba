"""Expands a plan over its base runs into checked jobs, and stores them in the plan's directory."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from biggan.config import Config, differences
from biggan.errors import UserError, check_exists, check_known
from biggan.run.small_files import read_json
from interventions.branch.parent import Parent, find_parent
from interventions.branch.timeline import Timed, make_timeline
from interventions.changes import make_change, recorded_change, with_code, with_fields
from interventions.changes.recorded import facts_of
from interventions.study.permit import refuse_other_code
from interventions.study.plan import CONTROL, PLAIN, Entry, Plan, PlannedChange
from interventions.study.stored import check_stored, in_other_places, of_first_format, with_names_of_today
from spectra.record.files import is_unused, make_folder

_FORMAT = "interventions-plan-2"
_FIRST_FORMAT = "interventions-plan-1"
"""The format of plans from before seeds had their own field: the seed was part of the entry's name."""
SEED_STRIDE = 1000
BRANCHING_POINT = "branching-point"
"""The name of a base run that is trained again up to its branching step, whose checkpoint was not kept. It is a means
to branch, and no run of the comparison: it is in no list of jobs."""


@dataclass(frozen=True)
class Base:
    """A base run: the checkpoint that its branches start from."""

    name: str
    checkpoint: str
    digest: str
    step: int
    run: str | None
    seed: int | None = None
    """The seed of a base run that the study itself trains. Its checkpoint is "" until it is known; a step that is known
    without a checkpoint is the one to train to again (see `BRANCHING_POINT`)."""
    state: str = ""
    """Digest of the checkpoint's tensors alone, equal wherever the same run was trained; "": not known."""
    placed_by_collapse: bool = False
    """Whether the checkpoint was chosen by when its run collapsed."""


@dataclass(frozen=True)
class Job:
    """One run of a plan: an entry of one base run, with the base run's own noise or under another seed."""

    base: str
    entry: str
    """"control" and "plain" are the unchanged ones."""
    kind: str
    """"control", "seed" (unchanged but for the seed), "branch", or "scratch"."""
    steps: int
    """Further steps of a branch; total steps of a run from scratch."""
    changes: tuple[dict[str, Any], ...] = ()
    """{"change", "from", "until", "defined_in", "code"}, steps as the run counts them; the last two of a change of
    somebody's own: the name of its file, and the digest of its text."""
    seed: int | None = None
    """The number of a further seed; None: the base run's own noise."""

    @property
    def name(self) -> str:
        """The entry, and its seed if it has one: its directory's name."""
        return run_name(self.entry, self.seed)

    @property
    def key(self) -> str:
        """BASE/NAME: its place in the plan's directory."""
        return f"{self.base}/{self.name}"

    def timed(self) -> list[Timed]:
        """The changes themselves. Raises `UserError` where this call has not named their code (see `with_code`)."""
        return [Timed(with_code(recorded_change(one)), one["from"], one["until"]) for one in self.changes]


@dataclass(frozen=True)
class Resolved:
    """A plan expanded over its base runs, as stored in plan.json."""

    plan: str
    title: str
    bases: tuple[Base, ...]
    jobs: tuple[Job, ...]
    settings: dict[str, Any]
    figures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    study: dict[str, Any] | None = None
    """What the runs from scratch of a study that trains its own base runs are made from (see `StudyFacts`)."""

    def base_of(self, job: Job) -> Base:
        """The base run of a job."""
        return next(base for base in self.bases if base.name == job.base)

    def job(self, key: str) -> Job:
        """The job of a key."""
        again = (Job(base.name, BRANCHING_POINT, "scratch", base.step) for base in self.bases)
        return next(job for job in itertools.chain(self.jobs, again) if job.key == key)

    def as_json(self) -> dict[str, Any]:
        """The contents of plan.json."""
        return json.loads(json.dumps({"format": _FORMAT, **asdict(self)}))


def resolve(
    plan: Plan,
    places: list[str],
    *,
    at: int | None = None,
    before_collapse: int | None = None,
    steps: int,
    scratch_steps: int | None = None,
    seeds: int | None = None,
    settings: Mapping[str, Any] | None = None,
    in_steps: bool = False,
) -> Resolved:
    """Expand a plan over the base runs in `places`; everything is checked, nothing is written.

    Branches go `steps` further steps; runs from scratch `scratch_steps`, or as many as the base run has in all.
    `in_steps`: the entries' `from` and `until` are further steps already. Raises `UserError` for a missing parent and
    for whatever a single branch would be refused for; an entry that is what the base run is already becomes a note.
    """
    parents = [find_parent(place, at=at, before_collapse=before_collapse) for place in places]
    given = {**plan.settings, **(settings or {})}
    _check_settings(given)
    bases: list[Base] = []
    jobs: list[Job] = []
    notes: list[str] = []
    for parent, name in zip(parents, _base_names(parents), strict=True):
        run = None if parent.run is None else str(parent.run.path.resolve())
        path = str(parent.checkpoint.path.resolve())
        placed = before_collapse is not None
        bases.append(Base(name, path, parent.checkpoint.digest, parent.step, run, placed_by_collapse=placed))
        config = parent.checkpoint.config
        layout = Layout(config, name, steps, scratch_steps or config.steps, in_steps, parent)
        jobs += layout.unchanged(plan, plan.seeds if seeds is None else seeds)
        for entry in plan.entries:
            job, why = layout.job_or_reason(entry, jobs, lenient=plan.is_shipped)
            if job is None:
                notes.append(f"{name}/{run_name(entry.name, entry.seed)} is skipped: {why}")
            else:
                jobs.append(job)
    notes += _dependent(parents, [base.name for base in bases])
    return Resolved(plan.name, plan.title, tuple(bases), tuple(jobs), given, plan.figures, tuple(notes))


def run_name(entry: str, seed: int | None) -> str:
    """The name of an entry's run: ENTRY, or ENTRY-seed-N."""
    return entry if seed is None else f"{entry}-seed-{seed}"


@dataclass(frozen=True)
class Layout:
    """How the entries of a plan become runs of one base run."""

    config: Config
    """The base run's."""
    base: str
    steps: int
    """Further steps of a branch."""
    scratch_steps: int
    """Total steps of a run from scratch."""
    in_steps: bool = False
    """Whether the entries' `from` and `until` are steps, not shares of the length."""
    parent: Parent | None = None
    """Its branching checkpoint; None: not known yet, and then a branch is laid out as if it began at step 0."""

    @property
    def begin(self) -> int:
        """The branching point."""
        return 0 if self.parent is None else self.parent.step

    def unchanged(self, plan: Plan, seeds: int) -> list[Job]:
        """The unchanged run and its further seeds, of branches and of runs from scratch, where the plan has such."""
        jobs: list[Job] = []
        numbers = range(1, seeds + 1)
        if not plan.entries or not all(entry.scratch for entry in plan.entries):
            jobs += self.controls(seeds)
        if any(entry.scratch for entry in plan.entries):
            jobs.append(Job(self.base, PLAIN, "scratch", self.scratch_steps))
            jobs += [Job(self.base, PLAIN, "scratch", self.scratch_steps, (self._seed(n, 0),), n) for n in numbers]
        return jobs

    def controls(self, seeds: int) -> list[Job]:
        """The unchanged branch, and its further seeds."""
        further = [(self._seed(n, self.begin), n) for n in range(1, seeds + 1)]
        return [
            Job(self.base, CONTROL, "control", self.steps),
            *(Job(self.base, CONTROL, "seed", self.steps, (change,), n) for change, n in further),
        ]

    def job(self, entry: Entry, *, check: bool = True) -> Job | None:
        """The run of an entry; None if the base run already has its settings. Raises `UserError` if it cannot be
        done. Without `check` its networks are not made, to save time where another seed's were."""
        begin, length = self._span(entry)
        try:
            timed = [one for given in entry.changes if self._has_effect(one := self._timed(given, entry))]
            if not timed:
                return None
            if check:
                self._check(entry, timed)
        except UserError as error:
            raise UserError(f"entry {entry.name}: {error}") from error
        changes = tuple(_as_json(one) for one in timed)
        if entry.seed is not None:
            changes += (self._seed(entry.seed, begin),)
        return Job(self.base, entry.name, "scratch" if entry.scratch else "branch", length, changes, entry.seed)

    def job_or_reason(
        self, entry: Entry, others: Iterable[Job], *, lenient: bool, check: bool = True
    ) -> tuple[Job | None, str]:
        """The run of an entry; or None, and why it is left out: the base run, or one of the `others`, is the same run,
        or, where `lenient`, it cannot be done. Otherwise raises `UserError` for what cannot be done."""
        try:
            job = self.job(entry, check=check)
        except UserError as error:
            if not lenient:
                raise
            return None, str(error)
        if job is None:
            return None, "this base run already has these settings"
        what = (job.base, job.kind, job.steps, job.changes)
        same = next((one for one in others if (one.base, one.kind, one.steps, one.changes) == what), None)
        return (job, "") if same is None else (None, f"with this base run it is the same as {same.name}")

    def _span(self, entry: Entry) -> tuple[int, int]:
        """The first step of an entry's run, and its number of steps."""
        return (0, self.scratch_steps) if entry.scratch else (self.begin, self.steps)

    def _timed(self, given: PlannedChange, entry: Entry) -> Timed:
        """A change of the plan, with its steps as the run counts them; one that lasts to the end has no stop."""
        begin, length = self._span(entry)
        unit = 1 if self.in_steps else length
        change = make_change(given.name, arguments_in_steps(given.arguments, length))
        start = begin + round(given.since * unit)
        stop = None if given.until is None else begin + round(given.until * unit)
        one = Timed(change, start, None if stop is None or stop >= begin + length else stop)
        if entry.scratch and (one.start or one.stop or change.operates):
            raise UserError("a run from scratch can only change fields, from its first step on.")
        return one

    def _has_effect(self, timed: Timed) -> bool:
        change = timed.change
        return change.operates or bool(differences(self.config, with_fields(self.config, change.fields(self.config))))

    def _check(self, entry: Entry, timed: list[Timed]) -> None:
        """Raise `UserError` for whatever a single branch would be refused for."""
        from interventions.branch.branch import Branch, check_branch, check_phases

        begin, length = self._span(entry)
        if entry.scratch or self.parent is None:
            check_phases(make_timeline(self.config, begin, begin + length, timed))
        else:
            line = make_timeline(self.config, begin, begin + length, timed, *self.parent.open_changes())
            check_branch(Branch(self.parent, line, Path()))

    def _seed(self, number: int, begin: int) -> dict[str, Any]:
        """The change to the base run's further seed of this number, as plan.json holds it."""
        value = SEED_STRIDE * (self.config.seed + 1) + number
        return {"change": {"seed": {"value": value}}, "from": begin, "until": None}


def _as_json(timed: Timed) -> dict[str, Any]:
    found: dict[str, Any] = {"change": timed.change.spec(), "from": timed.start, "until": timed.stop}
    facts = facts_of(timed.change)
    return found | facts | ({"defined_in": Path(facts["defined_in"]).name} if facts else {})


def arguments_in_steps(value: Any, length: int) -> Any:
    """Arguments with `50%` converted to steps."""
    if isinstance(value, Mapping):
        return {key: arguments_in_steps(one, length) for key, one in value.items()}
    if isinstance(value, str):
        return re.sub(r"(\d+(?:\.\d+)?)%", lambda m: str(round(float(m[1]) / 100 * length)), value)
    return value


def _base_names(parents: list[Parent]) -> list[str]:
    """A directory name for each base run: its run's name, with a number if several are equal."""
    names: list[str] = []
    for parent in parents:
        name = parent.run.path.resolve().name if parent.run is not None else parent.checkpoint.path.stem
        number, free = 1, name
        while free in names:
            number += 1
            free = f"{name}-{number}"
        names.append(free)
    digests = [parent.checkpoint.digest for parent in parents]
    if len(set(digests)) < len(digests):
        raise UserError("the same checkpoint is given twice. Each base run counts once: omit one.")
    return names


def _dependent(parents: list[Parent], names: list[str]) -> list[str]:
    """A note on every two base runs that are one run, because the statistics treat base runs as independent."""
    notes = []
    for (one, name), (other, second) in itertools.combinations(zip(parents, names, strict=True), 2):
        configs = one.checkpoint.config, other.checkpoint.config
        if one.run is not None and other.run is not None and one.run.path.resolve() == other.run.path.resolve():
            notes.append(one_run_words([name, second]))
        elif set(differences(*configs, numbers_only=True)) <= {"steps"}:
            notes.append(
                f"{name} and {second} have the same seed and configuration, and may be the same run: n counts them as 2"
            )
    return notes


def one_run_words(names: list[str]) -> str:
    """A note that base runs are checkpoints of one run."""
    return f"{' and '.join(names)} are checkpoints of one run, and not independent: n counts them as {len(names)}"


def _check_settings(settings: Mapping[str, Any]) -> None:
    from biggan.config import fields

    free = {name: f.metadata.get("numbers", True) for name, f in fields()}
    for name in settings:
        check_known(name, free, "configuration field")
        if free[name]:
            raise UserError(
                f"{name} affects the results, so it cannot be a setting of a plan. Make it a change of an entry."
            )


def save_resolved(resolved: Resolved, folder: Path) -> Resolved:
    """Write plan.json, or find the same plan there already; the plan as it is there. The places of the base runs may
    be others than before: their digests decide. Raises `UserError` where another plan is."""
    from spectra.record.files import write_text

    path = folder / "plan.json"
    if path.is_file():
        before = load_resolved(folder)
        refuse_other_code(before.jobs, resolved.jobs, folder)
        found = in_other_places(before, load_json(resolved.as_json()))
        if found is None:
            raise UserError(
                f"{folder} holds another plan, or the same one with other parents or lengths: "
                f"{_what(before, resolved)}. Choose another --out, or give the plan's original options."
            )
        if found != before:
            write_text(path, json.dumps(found.as_json(), indent=1) + "\n")
        return found
    if not is_unused(folder):
        raise UserError(f"{folder} is not empty, and has no plan. Choose another --out.")
    make_folder(folder)
    write_text(path, json.dumps(resolved.as_json(), indent=1) + "\n")
    return resolved


def _what(before: Resolved, now: Resolved) -> str:
    one, other = before.as_json(), now.as_json()
    return f"{', '.join(key for key in one if one[key] != other.get(key))} differ"


def load_resolved(folder: Path) -> Resolved:
    """The plan of a plan's directory. Raises `UserError` where there is none."""
    check_exists(folder)
    path = Path(folder) / "plan.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a plan's directory: it has no plan.json.")
    mend = (
        "Restore an earlier copy, or begin the plan again with another --out. Its runs can still be compared: "
        "biggan-intervene compare RUN ..."
    )
    found = read_json(path, mend)
    try:
        resolved = load_json(found)
        check_stored(resolved)
        return resolved
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}). {mend}") from error


def load_json(values: Mapping[str, Any]) -> Resolved:
    """What `as_json` made. Raises `UserError`, `KeyError`, `TypeError` or `ValueError` for what it did not."""
    if values.get("format") not in (_FORMAT, _FIRST_FORMAT):
        raise UserError(f"plan.json has the format {values.get('format')!r:.60}, expected {_FORMAT!r}.")
    jobs = map(of_first_format, values["jobs"]) if values["format"] == _FIRST_FORMAT else values["jobs"]
    found = Resolved(
        plan=values["plan"],
        title=values["title"],
        bases=tuple(Base(**base) for base in values["bases"]),
        jobs=tuple(Job(**{**job, "changes": tuple(map(with_names_of_today, job["changes"]))}) for job in jobs),
        settings=values["settings"],
        figures=tuple(values["figures"]),
        notes=tuple(values["notes"]),
        study=values.get("study"),
    )
    return found
