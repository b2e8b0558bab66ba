"""Collects runs to compare: branches and their controls, each identified by base run, changes and seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biggan.errors import UserError
from interventions.compare.outcome import RunOutcome, read_outcome
from interventions.study.expand import load_resolved, one_run_words, run_name
from interventions.study.growth import check_same_bases
from spectra.record.events import read_json_lines

UNCHANGED = ("control", "plain")
"""The unchanged entries: of branches, and of runs from scratch."""


PLACED = (
    "branching points were chosen by when their run collapsed: branches are compared with the unchanged continuations "
    "under other seeds, not with the one that has the run's own noise, because that one's collapse chose the point "
    "(mean, interval and signs of the table of effects, and the figure Effects, are still against that one: see there "
    "how far the other seeds lie from it)"
)


@dataclass
class Row:
    """One run in a comparison."""

    base: str
    entry: str
    """What was changed; see `UNCHANGED`."""
    kind: str
    """"control", "seed" (unchanged but for the seed), "branch" or "scratch"."""
    outcome: RunOutcome
    seed: int | None = None
    """The number of its further seed; None: the base run's own noise."""
    copy: int = 1
    """Its number among the runs of one base, entry and seed."""
    is_alone: bool = False
    """Whether it is a run from scratch outside any plan."""

    @property
    def name(self) -> str:
        """ENTRY, ENTRY-seed-N, or one of these with the number of a copy; unique within its base run."""
        return run_name(self.entry, self.seed) + ("" if self.copy == 1 else f" ({self.copy})")

    @property
    def arm(self) -> str:
        """The group that it is compared in: an entry with all its seeds; a copy is a separate group."""
        return self.entry if self.copy == 1 else f"{self.entry} ({self.copy})"

    @property
    def is_unchanged(self) -> bool:
        """Whether only its noise differs from the parent's: a control, or a continuation under another seed."""
        return self.entry in UNCHANGED and not self.is_alone

    @property
    def control_entry(self) -> str:
        """The entry that it is compared with."""
        return "plain" if self.kind == "scratch" else "control"


@dataclass
class Comparison:
    """All runs of a comparison, with access to controls and entries."""

    rows: list[Row]
    title: str = "comparison"
    notes: list[str] = field(default_factory=list)
    parents: dict[str, Path] = field(default_factory=dict)
    """The directories of the base runs that still exist."""
    planned: list[str] = field(default_factory=list)
    """The plan's changed entries, whether begun or not."""
    folder: Path | None = None
    """The plan's directory; None for loose runs."""
    placed_by_collapse: set[str] = field(default_factory=set)
    """The base runs whose branching point was chosen by when they collapsed."""
    _frames: dict[Path, dict[str, Any]] = field(default_factory=dict, repr=False)

    def frames(self, path: Path) -> dict[str, Any]:
        """A run's record as `spectra.load` gives it, read once."""
        import spectra

        if path not in self._frames:
            self._frames[path] = spectra.load(path)
        return self._frames[path]

    @property
    def scored(self) -> bool:
        """Whether any run holds scores."""
        return any(row.outcome.scored for row in self.rows)

    def control_of(self, row: Row) -> Row | None:
        """The unchanged run of the same base run, for a branch or a run from scratch. For a changed run under another
        seed: the unchanged run under that seed, if it exists, because their noise is the same."""
        mine = {one.name: one for one in reversed(self.rows) if one.base == row.base}
        seed = None if row.is_unchanged else row.seed
        return mine.get(run_name(row.control_entry, seed)) or mine.get(row.control_entry)

    def unchanged(self, base: str, entry: str) -> list[Row]:
        """The unchanged runs of a base run that changed ones are compared with: `entry` itself and those under other
        seeds, without copies.

        Where the branching point was chosen by the collapse, the continuation with the parent's noise is left out: its
        collapse comes when it does because the point was chosen so, and no other run's does. It counts if it is alone.
        """
        mine = [row for row in self.rows if row.base == base and row.arm == entry]
        if base in self.placed_by_collapse and entry == "control":
            return [row for row in mine if row.seed is not None] or mine
        return mine

    def entries(self) -> list[str]:
        """The changed entries in order, each listed once for all its seeds."""
        return list(dict.fromkeys(row.arm for row in self.rows if not row.is_unchanged))

    @property
    def families(self) -> list[str]:
        """The entries for Holm's correction: those of the plan and those of the runs."""
        return list(dict.fromkeys([*self.planned, *self.entries()]))

    def of(self, entry: str) -> list[Row]:
        """An entry's runs, one per base run: the one with the parent's noise, or otherwise the first of its seeds.

        Of the control the first that `unchanged` has.
        """
        mine = [row for row in self.rows if row.arm == entry]
        if entry == "control":
            mine = [row for base in dict.fromkeys(row.base for row in mine) for row in self.unchanged(base, entry)]
        found: dict[str, Row] = {}
        for row in sorted(mine, key=lambda row: row.seed is not None):
            found.setdefault(row.base, row)
        return list(found.values())


def compare_plan(folder: str | Path) -> Comparison:
    """The runs in a plan's directory, finished or not. Raises `UserError` if it is not a plan's, or no run has
    begun."""
    folder = Path(folder)
    resolved = load_resolved(folder)
    rows: list[Row] = []
    notes = list(resolved.notes)
    waiting: dict[str, list[str]] = {}
    for job in resolved.jobs:
        begin = 0 if job.kind == "scratch" else resolved.base_of(job).step
        if not (folder / job.key / "events.jsonl").is_file():
            waiting.setdefault(job.base, []).append(job.name)
            continue
        rows.append(Row(job.base, job.entry, job.kind, read_outcome(folder / job.key, begin), job.seed))
        if not rows[-1].outcome.done:
            words = "until it finishes, only its collapse counts"
            notes.append(f"{job.key} has not finished: it is at step {rows[-1].outcome.last}; {words}")
    notes += [f"{base}: not begun yet: {', '.join(entries)}" for base, entries in waiting.items()]
    done = {f"{row.base}/{row.name}" for row in rows if row.outcome.done}
    notes += [f"{key} failed: {words}" for key, words in failures(folder).items() if key not in done]
    if not rows:
        raise UserError(f"no run of the plan in {folder} has begun.")
    homes = {base.name: folder / base.run for base in resolved.bases if base.run}  # relative ones are of the study
    parents = {name: run for name, run in homes.items() if _has_events(run)}
    planned = [job.entry for job in resolved.jobs if job.entry not in UNCHANGED]
    placed = {base.name for base in resolved.bases if base.placed_by_collapse or resolved.study is not None}
    if any(row.entry == "control" and row.seed is not None and row.base in placed for row in rows):
        notes.append(PLACED)
    notes += notes_on(rows)
    return Comparison(rows, resolved.title, notes, parents, list(dict.fromkeys(planned)), folder, placed)


def compare_plans(folders: Iterable[str | Path]) -> Comparison:
    """The runs of several directories of one study as one comparison, such as its recorded part and a new one.

    Base runs of one name are one base run.

    Raises `UserError` where a name stands for different base runs, and where a run is in two of the directories.
    """
    places = [Path(folder) for folder in folders]
    if not places:
        raise UserError("no study is given. Give at least one directory.")
    check_same_bases(places)
    parts = [compare_plan(place) for place in places]
    rows: dict[tuple[str, str], tuple[Row, Path]] = {}
    for place, part in zip(places, parts, strict=True):
        for row in part.rows:
            key = row.base, row.name
            if key in rows:
                raise UserError(
                    f"{row.base}/{row.name} is both in {rows[key][1]} and in {place}. Give only one of them, or remove "
                    f"one of the runs."
                )
            rows[key] = row, place
    return Comparison(
        rows=[row for row, _ in rows.values()],
        title=parts[0].title,
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
        parents={name: path for part in reversed(parts) for name, path in part.parents.items()},
        planned=list(dict.fromkeys(entry for part in parts for entry in part.planned)),
        folder=parts[0].folder,
        placed_by_collapse=set().union(*(part.placed_by_collapse for part in parts)),
    )


def compare_runs(paths: Iterable[str | Path]) -> Comparison:
    """Any runs: branches are recognized by their lineage and grouped by their parent; other runs stand alone."""
    from biggan.run.directory import run_of
    from interventions.branch.branch import read_facts

    rows: list[Row] = []
    names: dict[tuple[str, Any], str] = {}
    parents: dict[str, Path] = {}
    notes: list[str] = []
    for path in {path.resolve(): path for path in map(Path, paths)}.values():
        facts = read_facts(path)
        parent = facts.get("parent")
        if not parent:
            name = _named(names, (str(path.resolve()), 0), path.name)
            rows.append(Row(name, name, "scratch", read_outcome(path, 0), is_alone=True))
            continue
        checkpoint = Path(parent["path"])
        run = run_of(checkpoint)
        home = _home(checkpoint) if run is None else run.path
        name = _named(names, (parent["digest"], parent["step"]), f"{home.name} at {parent['step']}")
        if run is not None and _has_events(run.path):
            parents[name] = run.path
        entry, seed = entry_of(facts["changes"], parent["step"])
        kind = "branch" if entry != "control" else "control" if seed is None else "seed"
        copy = 1 + sum((row.base, row.entry, row.seed) == (name, entry, seed) for row in rows)
        row = Row(name, entry, kind, read_outcome(path, parent["step"]), seed, copy)
        if copy > 1:
            notes.append(f"{path} is another run of {name} with {run_name(entry, seed)}: it is called {row.name}")
        rows.append(row)
    return Comparison(rows, "comparison", notes + notes_on(rows, parents), parents)


def notes_on(rows: list[Row], parents: Mapping[str, Path] | None = None) -> list[str]:
    """Notes on what weakens the comparison: base runs that are one run, and scores under different settings."""
    notes = []
    runs = [path.resolve() for path in (parents or {}).values()]
    for run in dict.fromkeys(path for path in runs if runs.count(path) > 1):
        mine = [name for name, path in (parents or {}).items() if path.resolve() == run]
        notes.append(one_run_words(mine))
    mixed = [row for row in rows if row.outcome.mixed]
    if mixed:
        where = f"{mixed[0].base}/{mixed[0].name}" + (f" and {len(mixed) - 1} more" if mixed[1:] else "")
        notes.append(f"evaluations whose settings differ from the last one's are ignored, such as a parent's ({where})")
    settings = [row.outcome.settings for row in rows if row.outcome.settings]
    names = {name for one in settings for name in one}
    differing = {name: list(dict.fromkeys(str(one.get(name)) for one in settings)) for name in sorted(names)}
    words = [f"{name} {' or '.join(values)}" for name, values in differing.items() if len(values) > 1]
    if words:
        notes.append(
            f"the runs were evaluated under different settings ({', '.join(words)}): do not compare their scores"
        )
    left = sum(row.outcome.collapsed_before for row in rows)
    if left:
        said = "1 run had" if left == 1 else f"{left} runs had"
        notes.append(f"{said} collapsed before the branching point: excluded from survival, delays and seed variation")
    return notes + _notes_on_records(rows)


def _notes_on_records(rows: list[Row]) -> list[str]:
    """Notes on runs that are too short, and on damaged and thinned records."""
    notes = [words for row in rows for words in row.outcome.damage]
    if short := [row for row in rows if row.outcome.too_short and not row.outcome.collapsed_before]:
        notes.append(
            f"too few evaluations after the branching point to see a collapse ({_listed(short)}): excluded from "
            "survival "
            f"and delays. Train further, or evaluate more often."
        )
    if stopped := [row for row in rows if row.outcome.stopped_by not in (None, "non_finite")]:
        notes.append(
            f"an alarm stopped some runs ({_listed(stopped)}): their last scores are of that step, and not of the "
            "others' last one"
        )
    if thinned := [row for row in rows if row.outcome.record == "thinned"]:
        notes.append(
            f"records are thinned ({_listed(thinned)}): the peak of D's loss and D's spikes need every step, so they "
            "are not "
            f"known; growth of sigma_0 is computed from the measurements that were kept"
        )
    if whole := [row for row in rows if row.outcome.record.startswith("thinned,")]:
        notes.append(
            f"records are thinned ({_listed(whole)}): losses, accuracies and spectra are computed from the whole "
            "records, "
            f"before they were thinned; figures show the steps that were kept"
        )
    return notes


def _listed(rows: list[Row]) -> str:
    first = f"{rows[0].base}/{rows[0].name}"
    return first + (f" and {len(rows) - 1} more" if rows[1:] else "")


def _named(names: dict[tuple[str, Any], str], key: tuple[str, Any], name: str) -> str:
    """The name of `key`, with a number if the name is already taken."""
    if key not in names:
        number, free = 1, name
        while free in names.values():
            number += 1
            free = f"{name} ({number})"
        names[key] = free
    return names[key]


def _home(checkpoint: Path) -> Path:
    """The directory of a checkpoint's run, which no longer exists."""
    folders = [folder.parent for folder in checkpoint.parents if folder.name == "checkpoints"]
    return folders[0] if folders else checkpoint.with_suffix("")


def _has_events(run: Path) -> bool:
    return (run / "events.jsonl").is_file()


def entry_of(changes: list[dict[str, Any]], begin: int) -> tuple[str, int | None]:
    """The changes of a branch of step `begin` in words, "control" for none, and the seed that it begins with, where
    that is another than its parent's."""
    from interventions.branch.timeline import applied_from_json

    applied = [one.timed for one in applied_from_json(changes)]
    seeds = [one for one in applied if one.change.name == "seed" and one.start == begin]
    others = [one.describe(begin) for one in applied if one not in seeds]
    seed = int(seeds[0].change.spec()["seed"]["value"]) if len(seeds) == 1 else None
    return "; ".join(others) or "control", seed


def failures(folder: Path) -> dict[str, str]:
    """The jobs of a plan that crashed and have not finished since, with their last output."""
    found: dict[str, list[str]] = {}
    for event in read_json_lines(folder / "launches.jsonl"):
        key, words = event.get("key"), event.get("words", "")
        if not isinstance(key, str):
            continue
        if event.get("event") == "crashed":
            found[key] = str(words).strip().splitlines()[-1:] or [f"code {event.get('code')}"]
        elif event.get("event") == "finished":
            found.pop(key, None)
    return {key: words[0] for key, words in found.items()}


def delay(row: Row, control: Row | None) -> float:
    """How many steps later than the control it collapsed. NaN if one of the two did not collapse, is not known, or had
    collapsed before the branching point."""
    if control is None or not (row.outcome.at_risk and control.outcome.at_risk):
        return math.nan
    if row.outcome.collapse is None or control.outcome.collapse is None:
        return math.nan
    return float(row.outcome.collapse - control.outcome.collapse)


def later(row: Row, control: Row | None) -> float:
    """The sign of its delay: 1 later than the control, -1 earlier, 0 at the same step; NaN if it is not known.

    It is also known if one of the two collapsed, and a collapse of the other would have been visible by that step.
    """
    both = delay(row, control)
    if not math.isnan(both):
        return float((both > 0) - (both < 0))
    if control is None or not (row.outcome.at_risk and control.outcome.at_risk):
        return math.nan
    mine, other = row.outcome, control.outcome
    if other.collapse is not None:
        return 1.0 if _outlived(mine, other.collapse) else math.nan
    return -1.0 if mine.collapse is not None and _outlived(other, mine.collapse) else math.nan


def _outlived(survivor: RunOutcome, step: int) -> bool:
    """Whether an onset up to `step` would be visible in it by now."""
    return survivor.judged_until is not None and survivor.judged_until >= step
