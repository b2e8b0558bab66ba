"""What plan.json may hold: checked when it is read, and brought to the names of today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_type_hints

from biggan.config.fields import has_type
from biggan.run.small_files import is_stored_change

if TYPE_CHECKING:
    from interventions.study.expand import Base, Resolved


def check_stored(found: Resolved) -> None:
    """Raise `ValueError` where a value of plan.json is not of its type, or a job is of no base run."""
    for one in (found, *found.bases, *found.jobs):
        for name, hint in get_type_hints(type(one)).items():
            if name not in ("bases", "jobs", "changes") and not has_type(getattr(one, name), hint):
                raise ValueError(f"{name} is {getattr(one, name)!r:.60}")
    names = [base.name for base in found.bases]
    for job in found.jobs:
        if job.base not in names or not all(map(is_stored_change, job.changes)) or not _is_one_name(job.key):
            raise ValueError(f"the run {job.key!r:.60} is not one of this plan")
    if found.study is not None and not isinstance(found.study.get("config"), dict):
        raise ValueError("the study has no configuration")


def _is_one_name(key: str) -> bool:
    """Whether a run's place is a folder of a folder of the plan's, and nowhere else."""
    return all(part and part not in (".", "..") for part in key.split("/")) and key.count("/") == 1 and "\0" not in key


def in_other_places(before: Resolved, now: Resolved) -> Resolved | None:
    """The plan `before` with the places where its base runs lie `now`; None where the two are different plans.

    Base runs are the same where their digests are; they keep the names that they had.
    """
    names = {base.digest: base.name for base in before.bases}
    if {base.digest for base in now.bases} != set(names):
        return None
    called = {base.name: names[base.digest] for base in now.bases}
    bases = tuple(replace(base, name=called[base.name]) for base in now.bases)
    jobs = tuple(replace(job, base=called[job.base]) for job in now.jobs)
    moved = replace(now, bases=bases, jobs=jobs, notes=before.notes)
    here, there = (replace(one, bases=tuple(map(without_place, one.bases))) for one in (moved, before))
    return moved if here == there else None


def without_place(base: Base) -> Base:
    """A base run without where it lies."""
    return replace(base, checkpoint="", run=None)


def of_first_format(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job of the first format, whose seed stood in its name and whose further seeds were of the kind "luck"."""
    entry, _, number = job["entry"].partition("-seed-")
    kind = "seed" if job["kind"] == "luck" else job["kind"]
    return {**job, "entry": entry, "kind": kind, "seed": int(number) if number else None}


def with_names_of_today(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A stored change; one that sets a field by its earlier name sets the same field by its name of today."""
    from biggan.config import RENAMED

    arguments = entry["change"].get("set")
    if arguments is None or arguments["field"] not in RENAMED:
        return dict(entry)
    return {**entry, "change": {"set": {**arguments, "field": RENAMED[arguments["field"]]}}}
