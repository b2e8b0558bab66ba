"""A plan: many branches and runs from scratch of one or several base runs, each with its changes, as one file.

    title: Freezing
    seeds: 3                       # continuations of every parent under other seeds
    entries:
      freeze-G: {changes: [freeze: G]}
      lr-G-later: {changes: [{lr: G=x2, from: 0.5}]}
      r1: {from: scratch, changes: [r1: 10]}
      lr-{g}: {each: {g: [1e-5, 1e-4]}, changes: [lr: "G={g}"]}

`from` and `until` are shares of the entry's length; an argument such as `50%` is so many steps of it. The unchanged
control and the continuations under other seeds need no entry: every plan has them.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from biggan.config import Config, differences
from biggan.errors import UserError, check_known
from interventions.changes import Change, load_file, make_change, with_fields
from interventions.parent import Parent, find_parent
from interventions.timeline import Timed, make_timeline, source_file

FORMAT = "interventions-plan-1"
CONTROL, PLAIN = "control", "plain"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
SEED_STRIDE = 1000


@dataclass(frozen=True)
class Entry:
    """One line of a plan: changes with their steps as shares of its length."""

    name: str
    scratch: bool
    changes: tuple[tuple[str, Any, float, float | None], ...]
    """(change's name, its arguments, from, until)."""


@dataclass(frozen=True)
class Plan:
    """A plan's file, read and checked."""

    name: str
    title: str
    entries: tuple[Entry, ...]
    seeds: int = 3
    figures: tuple[str, ...] = ()
    """Figures of the paper to draw of each run, as `spectra plot` names them."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields that do not decide the numbers, for every entry."""


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


def shipped_plans() -> list[str]:
    """The plans that come with the package."""
    files = resources.files("interventions.plans").iterdir()
    return sorted(path.name.removesuffix(".yaml") for path in files if path.name.endswith(".yaml"))


def read_plan(name: str) -> Plan:
    """A shipped plan by name, or a YAML file. Raises `UserError` for what cannot be understood, naming the entry."""
    import yaml

    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        if not path.is_file():
            raise UserError(f"there is no plan {name}. Give a YAML file, or one of {', '.join(shipped_plans())}.")
        text, name = path.read_text(encoding="utf-8"), path.stem
    else:
        check_known(name, shipped_plans(), "plan")
        text = resources.files("interventions.plans").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"the plan {name} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, Mapping) or not isinstance(values.get("entries"), Mapping):
        raise UserError(f"the plan {name} has no entries: expected a mapping with `entries: NAME: changes: [...]`.")
    for key in values:
        check_known(key, ["title", "seeds", "figures", "settings", "entries"], f"key of the plan {name}:")
    entries = [entry for key, value in values["entries"].items() for entry in _entries(name, str(key), value)]
    names = [entry.name for entry in entries]
    if twice := next((one for one in names if names.count(one) > 1), None):
        raise UserError(f"the plan {name} has two entries called {twice}.")
    figures = tuple(str(figure) for figure in values.get("figures", ()))
    settings = dict(values.get("settings", {}))
    return Plan(name, values.get("title", name), tuple(entries), int(values.get("seeds", 3)), figures, settings)


def plan_of_changes(changes: list[tuple[Change, float, float | None]], seeds: int) -> Plan:
    """A plan of one entry and its `seeds` further continuations; steps here are further ones, not shares."""
    label = "+".join(change.describe() for change, _, _ in changes)
    given = tuple((change.name, change.spec()[change.name], since, until) for change, since, until in changes)
    name = re.sub(r"[^A-Za-z0-9.+-]+", "-", label.replace("/", "div")).strip("-")[:60]
    entries = [Entry(name, False, given)]
    for number in range(1, seeds + 1):
        entries.append(Entry(f"{name}-seed-{number}", False, (*given, ("seed", f"+{number}", 0.0, None))))
    return Plan(name, label, tuple(entries), seeds)


def _entries(plan: str, name: str, value: Any) -> Iterator[Entry]:
    """The entry, or one for each combination of the values under `each`."""
    where = f"entry {name} of the plan {plan}"
    value = value or {}
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is no mapping: expected {{changes: [...], from: parent or scratch}}.")
    for key in value:
        check_known(key, ["from", "changes", "each"], f"key of {where}:")
    origin = value.get("from", "parent")
    check_known(origin, ["parent", "scratch"], f"`from` of {where}:")
    each = {key: list(values) for key, values in (value.get("each") or {}).items()}
    for combination in itertools.product(*each.values()):
        chosen = dict(zip(each, combination, strict=True))
        full = _filled(name, chosen)
        if not NAME.fullmatch(full) or full in (CONTROL, PLAIN) or "-seed-" in full:
            raise UserError(f"'{full}' cannot be an entry's name: letters, digits, . _ + -, and none of a plan's own.")
        changes = tuple(_change(one, chosen, where) for one in value.get("changes") or ())
        if not changes:
            raise UserError(f"{where} has no changes. The unchanged control needs no entry: every plan has it.")
        yield Entry(full, origin == "scratch", changes)


def _change(given: Any, chosen: Mapping[str, Any], where: str) -> tuple[str, Any, float, float | None]:
    if not isinstance(given, Mapping):
        raise UserError(f"a change of {where} is {given!r}, expected a mapping such as freeze: D.")
    names = [key for key in given if key not in ("from", "until")]
    if len(names) != 1:
        raise UserError(f"a change of {where} names {', '.join(map(str, names)) or 'nothing'}, expected one change.")
    since, until = given.get("from", 0.0), given.get("until")
    for share in (since, until):
        if share is not None and not (isinstance(share, (int, float)) and 0 <= share <= 1):
            raise UserError(f"`from` and `until` of {where} are shares of its length, 0 to 1; one is {share!r}.")
    return names[0], _filled(given[names[0]], chosen), float(since), until


def _filled(value: Any, chosen: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        for key, one in chosen.items():
            value = value.replace("{" + key + "}", f"{one:g}" if isinstance(one, float) else str(one))
    return value


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
    try:
        if entry.scratch:
            make_timeline(config, begin, end, timed)
        else:
            make_timeline(config, begin, end, timed, *parent.open_changes())
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
    from biggan.rundir import write_whole

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
