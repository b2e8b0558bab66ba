"""A plan laid out over its base runs: every run that it asks for, checked, and what a plan's directory remembers."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from biggan.config import Config, differences
from biggan.errors import UserError, check_known
from interventions.branch.parent import Parent, find_parent
from interventions.branch.timeline import Timed, make_timeline, source_file
from interventions.changes import load_file, make_change, with_fields
from interventions.study.plan import CONTROL, PLAIN, Entry, Plan

FORMAT = "interventions-plan-1"
SEED_STRIDE = 1000


@dataclass(frozen=True)
class Base:
    """A base run: the checkpoint that its branches begin from."""

    name: str
    checkpoint: str
    digest: str
    step: int
    run: str | None


@dataclass(frozen=True)
class Job:
    """One run of a plan: an entry of one base run."""

    base: str
    entry: str
    kind: str
    """"control", "luck", "branch", or "scratch"."""
    steps: int
    """Further steps of a branch; total steps of a run from scratch."""
    changes: tuple[dict[str, Any], ...] = ()
    """{"change", "from", "until", "defined_in"}, steps as the run counts them."""

    @property
    def key(self) -> str:
        """BASE/ENTRY: its place in the plan's directory."""
        return f"{self.base}/{self.entry}"

    def timed(self) -> list[Timed]:
        """The changes themselves."""
        found = []
        for one in self.changes:
            if one.get("defined_in"):
                load_file(one["defined_in"])
            ((name, value),) = one["change"].items()
            found.append(Timed(make_change(name, value), one["from"], one["until"]))
        return found


@dataclass(frozen=True)
class Resolved:
    """A plan laid out over its base runs: what a plan's directory remembers in plan.json."""

    plan: str
    title: str
    bases: tuple[Base, ...]
    jobs: tuple[Job, ...]
    settings: dict[str, Any]
    figures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def base_of(self, job: Job) -> Base:
        """The base run of a job."""
        return next(base for base in self.bases if base.name == job.base)

    def job(self, key: str) -> Job:
        """The job of a key."""
        return next(job for job in self.jobs if job.key == key)

    def as_json(self) -> dict[str, Any]:
        """What plan.json holds."""
        return json.loads(json.dumps({"format": FORMAT, **asdict(self)}))


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
    """Lay a plan out over the base runs in `places`; everything is checked, nothing is written.

    Branches go `steps` further steps; runs from scratch `scratch_steps`, or as many as the base run has in all.
    `in_steps`: the entries' `from` and `until` are further steps already. Raises `UserError` for a missing parent and
    for whatever a single branch would be refused for; an entry that is what the base run is already becomes a note.
    """
    parents = [find_parent(place, at=at, before_collapse=before_collapse) for place in places]
    given = {**plan.settings, **(settings or {})}
    _check_settings(given)
    bases, jobs, notes = [], [], []
    for parent, name in zip(parents, _base_names(parents), strict=True):
        run = None if parent.run is None else str(parent.run.path.resolve())
        path = str(parent.checkpoint.path.resolve())
        bases.append(Base(name, path, parent.checkpoint.digest, parent.step, run))
        more, said = _jobs(plan, parent, name, steps, scratch_steps, plan.seeds if seeds is None else seeds, in_steps)
        jobs += more
        notes += said
    notes += _dependent(parents, [base.name for base in bases])
    return Resolved(plan.name, plan.title, tuple(bases), tuple(jobs), given, plan.figures, tuple(notes))


def _jobs(
    plan: Plan, parent: Parent, base: str, steps: int, scratch_steps: int | None, seeds: int, in_steps: bool
) -> tuple[list[Job], list[str]]:
    config, whole = parent.checkpoint.config, scratch_steps or parent.checkpoint.config.steps
    jobs, notes = [], []

    def other_seed(number: int) -> int:
        return SEED_STRIDE * (config.seed + 1) + number

    def seeded(number: int, start: int) -> tuple[dict[str, Any], ...]:
        return ({"change": {"seed": {"value": other_seed(number)}}, "from": start, "until": None},)

    if not plan.entries or not all(entry.scratch for entry in plan.entries):
        jobs.append(Job(base, CONTROL, "control", steps))
        jobs += [Job(base, f"{CONTROL}-seed-{n}", "luck", steps, seeded(n, parent.step)) for n in range(1, seeds + 1)]
    if any(entry.scratch for entry in plan.entries):
        jobs.append(Job(base, PLAIN, "scratch", whole))
        jobs += [Job(base, f"{PLAIN}-seed-{n}", "scratch", whole, seeded(n, 0)) for n in range(1, seeds + 1)]
    for entry in plan.entries:
        length, begin = (whole, 0) if entry.scratch else (steps, parent.step)
        timed = []
        for name, value, since, until in entry.changes:
            if name == "seed" and str(value).startswith("+"):
                value = other_seed(int(str(value)[1:]))
            change = make_change(name, _in_steps(value, length))
            unit = 1 if in_steps else length
            start, stop = begin + round(since * unit), None if until is None else begin + round(until * unit)
            one = Timed(change, start, None if stop is not None and stop >= begin + length else stop)
            if entry.scratch and (one.start or one.stop or change.operates):
                raise UserError(f"{entry.name} is a run from scratch: its changes are fields, from its first step on.")
            if change.operates or differences(config, with_fields(config, change.fields(config))):
                timed.append(one)
        if not timed:
            notes.append(f"{base}/{entry.name} is left out: this base run is that already")
            continue
        _check(timed, entry, parent, config, begin, begin + length)
        kind = "scratch" if entry.scratch else "branch"
        jobs.append(Job(base, entry.name, kind, length, tuple(_as_json(one) for one in timed)))
    return jobs, notes


def _check(timed: list[Timed], entry: Entry, parent: Parent, config: Config, begin: int, end: int) -> None:
    from interventions.branch.branch import Branch, check_branch, check_phases

    try:
        if entry.scratch:
            check_phases(make_timeline(config, begin, end, timed))
        else:
            check_branch(Branch(parent, make_timeline(config, begin, end, timed, *parent.open_changes()), Path()))
    except UserError as error:
        raise UserError(f"entry {entry.name}: {error}") from error


def _as_json(timed: Timed) -> dict[str, Any]:
    found: dict[str, Any] = {"change": timed.change.spec(), "from": timed.start, "until": timed.stop}
    return found | ({"defined_in": home} if (home := source_file(timed.change)) else {})


def _in_steps(value: Any, length: int) -> Any:
    """Arguments with `50%` as so many steps."""
    if isinstance(value, Mapping):
        return {key: _in_steps(one, length) for key, one in value.items()}
    if isinstance(value, str):
        return re.sub(r"(\d+(?:\.\d+)?)%", lambda m: str(round(float(m[1]) / 100 * length)), value)
    return value


def _base_names(parents: list[Parent]) -> list[str]:
    """A directory name for each base run: its run's, told apart by numbers where they agree."""
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
        raise UserError("the same checkpoint is given twice. Each base run counts once: leave one away.")
    return names


def _dependent(parents: list[Parent], names: list[str]) -> list[str]:
    """A note on every two base runs that are one run: statistics take base runs for independent."""
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
    """That base runs are checkpoints of one run."""
    return f"{' and '.join(names)} are checkpoints of one run, and not independent: n counts them as {len(names)}"


def _check_settings(settings: Mapping[str, Any]) -> None:
    from biggan.config import fields

    free = {name: f.metadata.get("numbers", True) for name, f in fields()}
    for name in settings:
        check_known(name, free, "configuration field")
        if free[name]:
            raise UserError(f"{name} decides the numbers, and a plan's settings may not. Make it a change of an entry.")


def save_resolved(resolved: Resolved, folder: Path) -> None:
    """Write plan.json, or find the same plan there already. Raises `UserError` where another one is."""
    from biggan.run.directory import write_whole

    path = folder / "plan.json"
    if path.is_file():
        before = load_resolved(folder)
        if before != load_json(resolved.as_json()):
            raise UserError(
                f"{folder} holds another plan, or the same one with other parents or lengths: "
                f"{_what(before, resolved)}. Give another --out, or the options that it was begun with."
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} exists, is not empty, and holds no plan. Give another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(resolved.as_json(), indent=1) + "\n")


def _what(before: Resolved, now: Resolved) -> str:
    one, other = before.as_json(), now.as_json()
    return f"{', '.join(key for key in one if one[key] != other.get(key))} differ"


def load_resolved(folder: Path) -> Resolved:
    """The plan of a plan's directory. Raises `UserError` where there is none."""
    path = Path(folder) / "plan.json"
    if not path.is_file():
        raise UserError(f"{folder} is no plan's directory: it has no plan.json.")
    return load_json(json.loads(path.read_text(encoding="utf-8")))


def load_json(values: Mapping[str, Any]) -> Resolved:
    """What `as_json` made."""
    if values.get("format") != FORMAT:
        raise UserError(f"plan.json has the format {values.get('format')!r}, expected {FORMAT!r}.")
    return Resolved(
        plan=values["plan"],
        title=values["title"],
        bases=tuple(Base(**base) for base in values["bases"]),
        jobs=tuple(Job(**{**job, "changes": tuple(job["changes"])}) for job in values["jobs"]),
        settings=values["settings"],
        figures=tuple(values["figures"]),
        notes=tuple(values["notes"]),
    )
