"""A rescue: a collapsed run is trained again from before its collapse, under several recipes. It is a plan of one base
run, so that it is launched, killed and continued like any other."""

from __future__ import annotations

import dataclasses
import math
import shlex
from dataclasses import dataclass
from pathlib import Path

from biggan.errors import UserError, check_exists
from biggan.run.directory import RunDirectory
from interventions.branch.parent import Parent, collapse_onset, find_parent, listed
from interventions.study.expand import Resolved, resolve
from interventions.study.permit import Permit
from interventions.study.plan import Plan, read_plan

_SHIPPED = "rescue"
"""The plan whose entries are the recipes, unless others are given."""
SEEN_WITHIN = 10
"""Evaluations after the old onset that a branch has at least: a collapse is called up to seven after it began."""


@dataclass(frozen=True)
class Rescue:
    """What is tried for a collapsed run."""

    run: Path
    onset: int
    """The onset of its collapse, a step."""
    resolved: Resolved
    """The plan: every recipe from `begin` to `end`, and the unchanged run under other seeds. Without a control, which
    would be the collapsed run again, bit for bit."""

    @property
    def begin(self) -> int:
        """The step at which the branches begin."""
        return self.resolved.bases[0].step

    @property
    def end(self) -> int:
        """Their last step."""
        return self.begin + self.resolved.jobs[0].steps


def plan_rescue(
    run: str | Path, recipes: str = "default", *, before: int = 1, steps: int | None = None, seeds: int | None = None
) -> Rescue:
    """Lay out a rescue of `run`; everything is checked, nothing is written.

    It starts from the newest checkpoint that lies at least `before` steps before the onset of the collapse. Branches
    train for `steps` further steps; by default until the old onset, and further by half of it, or by `SEEN_WITHIN`
    evaluations where that is more. `recipes` is "default", another shipped plan, or the file of one. `seeds`: how many
    other seeds the unchanged run is continued under (default: the plan's number).

    Raises `UserError` if the run did not collapse, has no such checkpoint, or has no scores; if a branch would end
    before the old onset; and for recipes that are not the shipped ones where one cannot be done.
    """
    run = Path(run)
    onset = _onset(run)
    if before < 0 or (seeds is not None and seeds < 1):
        raise UserError(
            f"--before is {before} and --seeds is {seeds}, expected at least 0 and 1: the recipes are compared with "
            "the unchanged run under another seed."
        )
    parent = find_parent(run, before_collapse=before)
    every = parent.checkpoint.config.eval.every
    if not every:
        raise UserError(
            f"{run} has no scores (eval.every is 0), so its branches could not be told apart. Train it with "
            "--eval.every N."
        )
    length = _length(parent, onset, every) if steps is None else steps
    if parent.step + length <= onset:
        raise UserError(
            f"--steps is {length}, so branches from step {parent.step} would end before step {onset}, at which {run} "
            f"collapsed. Give at least {_length(parent, onset, every)}."
        )
    plan = read_plan(_SHIPPED if recipes == "default" else recipes)
    _check_recipes(plan)
    resolved = resolve(plan, [str(parent.checkpoint.path)], steps=length, seeds=seeds)
    jobs = tuple(job for job in resolved.jobs if job.kind != "control")
    return Rescue(run, onset, dataclasses.replace(resolved, jobs=jobs))


def _onset(run: Path) -> int:
    check_exists(run)
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is not a run directory: it has no config.yaml. Give a run that has collapsed.")
    onset = collapse_onset(run)
    if onset is None:
        raise UserError(
            f"no collapse was detected in {run}, so there is nothing to rescue. To branch from one of its checkpoints, "
            f"use --ckpt {shlex.quote(str(run))} --at STEP; it has those of steps {listed(run)}."
        )
    return onset


def _length(parent: Parent, onset: int, every: int) -> int:
    further = max(onset / 2, SEEN_WITHIN * every)
    return math.ceil((onset + further) / every) * every - parent.step


def _check_recipes(plan: Plan) -> None:
    if scratch := [entry.name for entry in plan.entries if entry.scratch]:
        raise UserError(
            f"the recipe {scratch[0]} of {plan.name} trains from scratch, and a rescue starts from a checkpoint. Omit "
            "its `from: scratch`."
        )


def default_place(run: Path) -> Path:
    """Beside the run: RUN-rescue."""
    run = run.resolve()
    return run.with_name(f"{run.name}-rescue")


def command_to_go_on(rescue: Rescue, folder: Path, key: str, permit: Permit | None = None) -> str:
    """The command that trains the branch `key` further, with the settings of the collapsed run again. It names the code
    that `permit`, the caller's, names.

    To the collapsed run's own last step, or as far again as the branch has come where that lies behind it.
    """
    from interventions.changes import value_of

    config = RunDirectory(rescue.run).read_config()
    path = folder / key
    total = config.steps if config.steps > rescue.end else 2 * rescue.end - rescue.begin
    permit = permit or Permit()
    permits = [] if permit.features is None else ["--eval.features", permit.features]
    permits += ["--trust-cache"] if permit.trust_cache else []
    if RunDirectory(path).continued_by(rescue.end):
        files = [word for place, _ in permit.change_files for word in ("--change-file", place)]
        words = ["biggan-intervene", "--resume", str(path), "--steps", str(total - rescue.begin), *files, *permits]
        return shlex.join(words)
    words = ["biggan-train", "--resume", str(path), "--steps", str(total), *permits]
    for name, value in rescue.resolved.settings.items():
        before = value_of(config, name)
        if before != value:
            words += [f"--{name}", _as_option(before)]
    return shlex.join(words)


def _as_option(value: object) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
