"""What plan.json may hold: checked when it is read, and brought to the names of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

from biggan.config.fields import has_type
from biggan.run.small_files import is_stored_change

if TYPE_CHECKING:
    from interventions.study.expand import Resolved


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
