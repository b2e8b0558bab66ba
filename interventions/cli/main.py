"""`biggan-intervene`: branch a run with one thing changed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.cli.app import Parser
from biggan.cli.train import EXIT_DONE, EXIT_FAILED, EXIT_OF, guarded
from biggan.errors import UserError

if TYPE_CHECKING:
    from interventions.branch.branch import Branch
    from interventions.branch.timeline import Timed

PROGRAM = "biggan-intervene"
COMMANDS = ("compare", "replay")
DEFAULT_STEPS = 1000


def main(argv: list[str] | None = None) -> int:
    """`biggan-intervene`. Returns the exit code: 0 done, 2 bad input, 130 interrupted (saved), 1 anything else; with
    --control 1 also where the branch differs from its parent."""
    argv = sys.argv[1:] if argv is None else argv
    return guarded(PROGRAM, _intervene, argv)


def _intervene(argv: list[str]) -> int:
    if argv[:1] == ["changes"]:
        return _list_changes()
    if argv[:1] and argv[0] in COMMANDS:
        from interventions.cli import commands

        return getattr(commands, argv[0])(argv[1:])
    groups = _split(fields_as_set(argv))
    options = make_parser().parse_args([word for words in groups for word in words])
    if options.resume:
        others = ("--ckpt", "--at", "--before-collapse", "--out", "--control", "--dry-run", "--plan", "--seeds")
        _refuse(options, others, "cannot go with --resume: the branch knows what it is")
        if any(value for name, value in vars(options).items() if name == "change" or name.startswith("change:")):
            raise UserError("--resume continues a branch as it is. To change something, branch it: --ckpt RUN.")
        return _resume(options)
    changes, settings = read_changes(groups)
    if options.plan or options.seeds:
        from interventions.cli.commands import run_plan

        return run_plan(options, changes, settings)
    _refuse(options, ("--slurm", "--scratch-steps", "--jobs"), "is for many runs at once, with --plan or --seeds")
    return _branch(options, changes, settings)


def _refuse(options: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Raise `UserError` where one of these options was given."""
    silent = make_parser()
    given = [n for n in names if getattr(options, d := n[2:].replace("-", "_")) != silent.get_default(d)]
    if given:
        raise UserError(f"{' and '.join(given)} {why}. Leave {'it' if len(given) == 1 else 'them'} away.")


def make_parser() -> argparse.ArgumentParser:
    """The parser of a branch's command line, one option a change."""
    from interventions.changes import CHANGES

    parser = Parser(
        prog=PROGRAM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{PROGRAM} --ckpt X (--CHANGE VALUE ... | --control | --plan PLAN) [--steps N] [--out DIR] [options]",
        description="Branch a run from a checkpoint with something changed, or unchanged with --control. The branch "
        "goes on\nwith the parent's noise and images: what differs afterwards is the change's doing.",
        epilog=f"{PROGRAM} changes            lists every change with its arguments and its place in the paper\n"
        f"{PROGRAM} compare RUN...|DIR compares branches, or the runs of a plan's directory\n"
        f"{PROGRAM} replay ...         does one step again, with everything recorded\n"
        "--SECTION.FIELD VALUE is --set SECTION.FIELD=VALUE, for example --eval.every 100.\n"
        "Several changes are made together; --then begins another group of changes with its own --from and --until.\n"
        "Exit codes: 0 done (with --control: and equal to the parent), 2 bad input, 130 interrupted, 1 anything else.",
    )
    add = parser.add_argument
    add(
        "--ckpt",
        action="append",
        default=[],
        metavar="X",
        help="the parent: a checkpoint file, or a run directory (its newest checkpoint); with --plan also several, "
        "each with an option of its own: a base run each",
    )
    add("--at", type=int, metavar="STEP", help="with a run directory: the checkpoint of this step")
    add(
        "--before-collapse",
        type=int,
        metavar="N",
        help="with a run directory: the last checkpoint N steps or more before its detected collapse",
    )
    add(
        "--steps",
        type=int,
        metavar="N",
        help=f"train for N FURTHER steps from the checkpoint (biggan-train's --steps is a total; default "
        f"{DEFAULT_STEPS})",
    )
    add("--out", metavar="DIR", help="the branch's run directory; default: beside the parent's, named by the change")
    add("--resume", metavar="RUN", help="continue a branch that was stopped or killed, exactly; all else is known")
    add("--control", action="store_true", help="change nothing, and compare the branch with its parent at the end")
    add("--dry-run", action="store_true", help="show what would differ from the parent, and stop")
    add("--quiet", action="store_true", help="no progress display")
    add("--change-file", action="append", default=[], metavar="FILE", help="a Python file with changes of your own")
    _add_timed(parser)
    _add_plan(parser)
    changes = parser.add_argument_group("changes", "VALUE is [G=|D=]ARGUMENT[,ARGUMENT ...]; x2 and /2 are relative.")
    changes.add_argument(
        "--change",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a change by name, or by module:Class, such as one of your own",
    )
    for name, kind in CHANGES.items():
        if not _is_of_user(kind):
            text = f"{' '.join((kind.__doc__ or '').split())} ({kind.paper})" if kind.paper else kind.__doc__ or ""
            changes.add_argument(
                f"--{name}",
                action="append",
                default=[],
                metavar="FIELD=VALUE" if name == "set" else "VALUE",
                dest=f"change:{name}",
                help=" ".join(text.replace("%", "%%").split()),
            )
    return parser


def _add_timed(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--from", type=int, default=0, dest="since", metavar="N", help="make the changes after N further steps (0)")
    add("--until", type=int, metavar="N", help="take them back after N further steps; default: they stay")
    add("--then", action="store_true", help="begin another group of changes, with its own --from and --until")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "plans", "Many runs, each in a process of its own, compared at the end."
    ).add_argument
    add("--plan", metavar="PLAN", help="a plan's name (small-study, section-4, appendix-g ...) or YAML file")
    add("--seeds", type=int, metavar="N", help="other continuations of the parent, and of the changed branch; a plan's "
        "own number if not given")  # fmt: skip
    add("--jobs", type=int, default=1, metavar="N", help="runs at a time, a core each (1)")
    add("--scratch-steps", type=int, metavar="N", help="total steps of runs from scratch; default: the base run's")
    add("--slurm", action="append", metavar="KEY=VALUE", help="submit through submitit (partition=gpu, timeout_min=600 "
        "...); cluster=local runs its own processes")  # fmt: skip


def fields_as_set(argv: list[str]) -> list[str]:
    """The line with every `--section.field VALUE` as `--set section.field=VALUE`."""
    words, found = iter(argv), []
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("--") and "." in name:
            found += ["--set", f"{name[2:]}={value if equals else next(words, '')}"]
        else:
            found.append(word)
    return found


def _is_of_user(kind: type) -> bool:
    return not kind.__module__.startswith("interventions.")


def _split(argv: list[str]) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    for word in argv:
        if word == "--then":
            groups.append([])
        else:
            groups[-1].append(word)
    return groups


def read_changes(groups: list[list[str]]) -> tuple[list[tuple[Any, int, int | None]], dict[str, Any]]:
    """The changes of a line with their --from and --until, in further steps; and the settings among them: fields given
    with --set that do not decide the numbers."""
    from biggan.config import fields
    from interventions.changes import load_file, make_change

    free = {name for name, field in fields() if not field.metadata.get("numbers", True)}
    changes: list[tuple[Any, int, int | None]] = []
    settings: dict[str, Any] = {}
    for words in groups:
        options = make_parser().parse_args(words)
        given = vars(options)
        for path in options.change_file:
            load_file(path)
        keys = [key for key in given if key.startswith("change:")]
        named = [(key.removeprefix("change:"), value) for key in keys for value in given[key]]
        for text in options.change:
            named.append(_named(text))
        for name, value in named:
            change = make_change(name, value)
            if name == "set" and change.field in free:
                settings[change.field] = change.value
            else:
                changes.append((change, options.since, options.until))
    for field in ("steps", "out"):
        if field in settings:
            raise UserError(f"{field} is not to be --set. Give --{field}.")
    return changes, settings


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--change is '{text}', expected NAME=VALUE.")
    return name, value


def _branch(options: argparse.Namespace, changes: list[tuple[Any, int, int | None]], settings: dict[str, Any]) -> int:
    from interventions.branch.branch import check_branch, plan_branch
    from interventions.branch.parent import find_parent
    from interventions.branch.timeline import Timed

    if len(options.ckpt) != 1:
        raise UserError(f"--ckpt is given {len(options.ckpt)} times, expected the one parent (several go with --plan).")
    if options.control and changes:
        raise UserError(f"--control changes nothing, and '{changes[0][0].describe()}' is given. Leave one away.")
    if not options.control and not changes:
        raise UserError(f"nothing is to be changed. Give a change (see {PROGRAM} changes), or --control.")
    parent = find_parent(options.ckpt[0], at=options.at, before_collapse=options.before_collapse)
    timed: list[Timed] = [
        Timed(change, parent.step + since, None if until is None else parent.step + until)
        for change, since, until in changes
    ]
    branch = plan_branch(
        parent, timed, DEFAULT_STEPS if options.steps is None else options.steps, options.out, settings
    )
    if options.control:
        _check_comparable(branch)
    if options.dry_run:
        check_branch(branch)
        print(describe_branch(branch))
        return EXIT_DONE
    return _run(branch, options)


def _run(branch: Branch, options: argparse.Namespace) -> int:
    from interventions.branch.branch import run_branch

    if not options.quiet:
        print(f"{branch.label()}: from step {branch.parent.step} of {branch.parent.checkpoint.path}")
    status = run_branch(branch, quiet=options.quiet)
    if status == "interrupted":
        print(f"interrupted; to go on:\n  {PROGRAM} --resume {branch.out}")
    if status == "finished" and options.control:
        return _compare_control(branch)
    if status == "finished" and not options.quiet:
        print(f"finished at step {branch.end}.\n  run         {branch.out}")
    return EXIT_OF[status]


def _check_comparable(branch: Branch) -> None:
    """Raise `UserError` where the parent has no step after the branching point, and --control could compare nothing."""
    from interventions.branch.parent import all_checkpoints

    parent = branch.parent
    if parent.run is None:
        return
    events = [e["step"] for e in parent.run.events() if not e.get("superseded")]
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
        print(f"{parent.checkpoint.path} lies in no run directory: there is nothing to compare the branch with.")
        return EXIT_FAILED
    found = compare_with_parent(branch.out, parent.run.path, parent.step)
    print(found)
    return EXIT_DONE if found.equal else EXIT_FAILED


def _resume(options: argparse.Namespace) -> int:
    from interventions.branch.branch import continue_branch

    status = continue_branch(options.resume, steps=options.steps, quiet=options.quiet)
    if status == "interrupted":
        print(f"interrupted; to go on:\n  {PROGRAM} --resume {options.resume}")
    elif not options.quiet:
        print(f"{status}.\n  run         {Path(options.resume)}")
    return EXIT_OF[status]


def describe_branch(branch: Branch) -> str:
    """Exactly what differs from the parent, phase by phase, and what does not."""
    from biggan.config import differences

    parent, lines = branch.parent, []
    lines.append(f"parent      {parent.checkpoint.path}, step {parent.step}, digest {parent.checkpoint.digest[:16]}")
    lines.append(f"branch      {branch.out}: steps {parent.step} to {branch.end}")
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
        lines.append(f"beside, with no effect on the numbers: {'; '.join(other)}")
    return "\n".join(lines)


def _purpose(change: Any) -> str:
    return " ".join((type(change).__doc__ or "").split("\n\n")[0].split()).rstrip(".")


def _list_changes() -> int:
    import dataclasses

    from interventions.changes import CHANGES

    for name, kind in CHANGES.items():
        arguments = ", ".join(
            field.name + ("" if field.default is dataclasses.MISSING else f" ({field.default})")
            for field in dataclasses.fields(kind)
        )
        print(f"{name:<18}{' '.join((kind.__doc__ or '').split())}")
        print(f"{'':<18}arguments: {arguments}{f'; paper: {kind.paper}' if kind.paper else ''}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
