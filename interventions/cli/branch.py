"""`biggan-intervene --ckpt X`: one branch, an unchanged control, and resuming either."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.cli.app import EXIT_DONE, EXIT_FAILED, EXIT_OF
from biggan.errors import UserError
from biggan.run.directory import RunDirectory
from biggan.run.files import shown_path
from interventions.cli.options import DEFAULT_STEPS, PROGRAM

if TYPE_CHECKING:
    from interventions.branch.branch import Branch
    from interventions.branch.timeline import Timed


def run_one(options: argparse.Namespace, changes: list[tuple[Any, int, int | None]], settings: dict[str, Any]) -> int:
    from interventions.branch.branch import check_branch, plan_branch
    from interventions.branch.parent import find_parent
    from interventions.branch.timeline import Timed

    if len(options.ckpt) != 1:
        raise UserError(f"--ckpt is given {len(options.ckpt)} times, expected one parent (only --plan takes several).")
    if options.control and changes:
        raise UserError(f"--control makes no change, but '{changes[0][0].describe()}' is given. Omit one.")
    if not options.control and not changes:
        raise UserError(f"no change is given. Give one (see {PROGRAM} changes), or --control.")
    parent = find_parent(options.ckpt[0], at=options.at, before_collapse=options.before_collapse)
    timed: list[Timed] = [
        Timed(change, parent.step + since, None if until is None else parent.step + until)
        for change, since, until in changes
    ]
    branch = plan_branch(
        parent,
        timed,
        DEFAULT_STEPS if options.steps is None else options.steps,
        options.out,
        settings,
        allow_change=options.allow_change,
    )
    if options.control:
        _check_comparable(branch)
    if options.dry_run:
        check_branch(branch)
        print(describe_branch(branch))
        return EXIT_DONE
    return _run(branch, options)


def _run(branch: Branch, options: argparse.Namespace) -> int:
    from biggan.run.ending import why_stopped
    from interventions.branch.branch import run_branch

    if not options.quiet:
        print(f"{branch.label()}: from step {branch.parent.step} of {shown_path(branch.parent.checkpoint.path)}")
    status = run_branch(branch, quiet=options.quiet)
    if status == "interrupted":
        print(f"interrupted; to go on:\n  {_to_go_on(shown_path(branch.out), options)}")
    if status == "stopped":
        print(why_stopped(RunDirectory(branch.out)))
    if status == "finished" and options.control:
        return _compare_control(branch)
    if status == "finished" and not options.quiet:
        print(f"finished at step {branch.end}.\n  run         {shown_path(branch.out)}")
    return EXIT_OF[status]


def _to_go_on(out: Path, options: argparse.Namespace) -> str:
    """The command that resumes a branch, naming the code that this one named."""
    import shlex

    from biggan.run.ending import own_features

    files = [word for path in dict.fromkeys(options.change_file) for word in ("--change-file", path)]
    given = [text.partition("=")[0].rpartition(":")[0] for text in options.change]
    files += [word for place in dict.fromkeys(filter(None, given)) for word in ("--change-file", place)]
    own = own_features(RunDirectory(out).read_config())
    trust = ["--trust-cache"] if options.trust_cache else []
    return shlex.join([PROGRAM, "--resume", str(out), *files, *own, *trust])


def _check_comparable(branch: Branch) -> None:
    """Raise `UserError` if the parent has no step after the branching point that --control could compare."""
    from biggan.run.checkpoint import all_checkpoints

    parent = branch.parent
    if parent.run is None:
        return
    events = [event["step"] for event in parent.run.events_that_hold()]
    last = max([*all_checkpoints(parent.run.path), *events], default=parent.step)
    if last <= parent.step:
        raise UserError(
            f"--control compares the branch with what its parent did after step {parent.step}, and {parent.run.path} "
            f"ends there. Branch from an earlier checkpoint, with --at."
        )


def _compare_control(branch: Branch) -> int:
    from interventions.branch.verify_control import compare_with_parent

    parent = branch.parent
    if parent.run is None:
        print(f"{parent.checkpoint.path} is not in a run directory, so there is nothing to compare the branch with.")
        return EXIT_FAILED
    found = compare_with_parent(branch.out, parent.run.path, parent.step)
    print(found)
    return EXIT_DONE if found.equal else EXIT_FAILED


def resume(options: argparse.Namespace) -> int:
    from biggan.run.ending import why_stopped
    from interventions.branch.branch import continue_branch

    status = continue_branch(
        options.resume, steps=options.steps, quiet=options.quiet, allow_change=options.allow_change
    )
    if status == "interrupted":
        print(f"interrupted; to go on:\n  {_to_go_on(Path(options.resume), options)}")
    elif status == "stopped":
        print(why_stopped(RunDirectory(Path(options.resume))))
    elif not options.quiet:
        print(f"{status}.\n  run         {Path(options.resume)}")
    return EXIT_OF[status]


def describe_branch(branch: Branch) -> str:
    """What differs from the parent, phase by phase."""
    from biggan.config import differences

    parent, lines = branch.parent, []
    lines.append(
        f"parent      {shown_path(parent.checkpoint.path)}, step {parent.step}, digest {parent.checkpoint.digest[:16]}"
    )
    lines.append(f"branch      {shown_path(branch.out)}: steps {parent.step} to {branch.end}")
    before = parent.checkpoint.config
    for phase in branch.timeline.phases:
        lines.append(f"steps {phase.start} to {phase.stop}:")
        changed = differences(before, phase.config, numbers_only=True)
        lines += [f"  {name}: {old} -> {new}" for name, (old, new) in changed.items()]
        lines += [f"  state: {change.describe()} ({_purpose(change)})" for change in phase.operations]
        if not changed and not phase.operations:
            lines.append("  nothing differs from the parent" if len(branch.timeline.phases) == 1 else "  as before")
        before = phase.config
    rest = differences(parent.checkpoint.config, branch.config)
    decided = differences(parent.checkpoint.config, branch.config, numbers_only=True)
    other = [f"{name}: {old} -> {new}" for name, (old, new) in rest.items() if name not in decided and name != "out"]
    if other:
        lines.append(f"also changed, without effect on training: {'; '.join(other)}")
    return "\n".join(lines)


def _purpose(change: Any) -> str:
    return " ".join((type(change).__doc__ or "").split("\n\n")[0].split()).rstrip(".")
