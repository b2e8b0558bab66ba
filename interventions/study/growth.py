"""A plan that grows while it runs: plan.json of a study that trains its own base runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.errors import UserError
from interventions.study.expand import Base, Job, Resolved, load_json, load_resolved
from interventions.study.stored import without_place

if TYPE_CHECKING:
    from biggan.config import Config


def study_facts(preset: str, config: Config, branch_steps: int, before: float) -> dict[str, Any]:
    """What a study's plan says of its base runs: the preset and its configuration, the steps of a branch, and how far
    before a collapse the base runs are branched (steps, or, if below 1, a share of the onset)."""
    from biggan.config import to_dict

    values = to_dict(dataclasses.replace(config, seed=0, out=None))
    return {"preset": preset, "config": values, "branch_steps": branch_steps, "before": before}


def load_study(folder: Path) -> Resolved | None:
    """The study in `folder`; None if there is none yet. Raises `UserError` for a plan of another kind."""
    if not (folder / "plan.json").is_file():
        return None
    found = load_resolved(folder)
    if found.study is None:
        raise UserError(
            f"{folder} holds the plan {found.plan} of given base runs, not a study that trains its own. Choose "
            f"another --out, or continue the plan with --plan."
        )
    return found


def grow_plan(resolved: Resolved, folder: Path) -> Resolved:
    """Write plan.json with everything in `resolved` and all that it held before; return what is written.

    A base run that had no checkpoint may have one now; nothing else that is in plan.json changes. Raises `UserError`,
    and writes nothing, where it would.
    """
    from spectra.record.files import write_text

    before = load_study(folder)
    grown = load_json(resolved.as_json())
    if before is not None:
        grown = _joined(before, grown, folder)
        if grown == before:
            return grown
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "plan.json", json.dumps(grown.as_json(), indent=1) + "\n")
    return grown


def _joined(before: Resolved, now: Resolved, folder: Path) -> Resolved:
    assert before.study is not None
    assert now.study is not None
    check_study(before.study, now.study, folder)
    bases: dict[str, Base] = {base.name: base for base in before.bases}
    for base in now.bases:
        known = bases.get(base.name)
        if known is not None and known.checkpoint and base.checkpoint and without_place(known) != without_place(base):
            raise UserError(
                f"{base.name} is branched at step {known.step} in {folder}, and would now be at step {base.step} or at "
                f"another checkpoint. Choose another --out."
            )
        if known is None or base.checkpoint or not known.checkpoint:  # the same base run may have been moved
            bases[base.name] = base
    jobs: dict[str, Job] = {job.key: job for job in before.jobs}
    for job in now.jobs:
        if job.key in jobs and jobs[job.key] != job:
            raise UserError(
                f"{job.key} is planned with other changes or another length in {folder}. Choose another --out, or give "
                f"the study's original options."
            )
        jobs[job.key] = job
    notes = tuple(dict.fromkeys([*before.notes, *now.notes]))
    return dataclasses.replace(now, bases=tuple(bases.values()), jobs=tuple(jobs.values()), notes=notes)


def training_differences(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """The fields, with both values, that make two runs from scratch differ: what affects the numbers, and the steps."""
    from biggan.config import differences

    changed: dict[str, tuple[Any, Any]] = dict(differences(one, other, numbers_only=True))
    return changed if one.steps == other.steps else changed | {"steps": (one.steps, other.steps)}


def check_study(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raise `UserError` where the study in `folder` has another configuration, branch length or branching place."""
    from biggan.config import from_dict

    one, other = from_dict(before["config"]), from_dict(now["config"])
    changed = training_differences(one, other)
    names = {"branch_steps": "--branch-steps", "before": "--before"}
    changed |= {words: (before[n], now[n]) for n, words in names.items() if before[n] != now[n]}
    if changed:
        listed = "; ".join(f"{name}: {old} -> {new}" for name, (old, new) in changed.items())
        raise UserError(
            f"{folder} holds a study with other settings (there -> given): {listed}. Give its original options, or "
            f"choose another --out."
        )


def check_same_bases(places: Sequence[Path]) -> None:
    """Raise `UserError` where base runs of one name differ between the plans in `places`."""
    known: dict[str, tuple[Base, Path]] = {}
    for place in places:
        for base in load_resolved(place).bases:
            before, where = known.setdefault(base.name, (base, place))
            if not _may_be_one(before, base):
                raise UserError(
                    f"{base.name} is another base run in {place} than in {where}: its branching checkpoint differs. "
                    f"Give only one of them."
                )
            if not before.digest:
                known[base.name] = base, place


def _may_be_one(one: Base, other: Base) -> bool:
    """Whether two base runs may be the same: equal at the branching point, or not branched in one of the two."""
    if not (one.digest and other.digest):
        return one.seed == other.seed
    same = one.state == other.state if one.state and other.state else one.digest == other.digest
    return same and one.step == other.step
