"""The options of `biggan-intervene`: one for each change, and the changes that a command line contains."""

from __future__ import annotations

import argparse
import itertools
from typing import TYPE_CHECKING, Any

from biggan.cli.app import Parser, add_version
from biggan.errors import UserError

if TYPE_CHECKING:
    from interventions.changes import ChangeFile


PROGRAM = "biggan-intervene"


DEFAULT_STEPS = 1000


def refuse_options(options: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Raise `UserError` where one of these options was given."""
    silent = make_intervene_parser()
    given = [n for n in names if getattr(options, d := n[2:].replace("-", "_")) != silent.get_default(d)]
    if given:
        raise UserError(f"{' and '.join(given)} {why}. Omit {'it' if len(given) == 1 else 'them'}.")


def make_intervene_parser() -> argparse.ArgumentParser:
    """The parser of a branch's command line, one option a change."""
    from interventions.changes import CHANGES

    parser = Parser(
        prog=PROGRAM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{PROGRAM} --ckpt X (--CHANGE VALUE ... | --control | --plan PLAN) [--steps N] [--out DIR] [options]",
        description="Branch a run from a checkpoint with something changed, or unchanged with --control. The branch "
        "continues\nwith the parent's noise and images, so every later difference is caused by the change.",
        epilog=f"{PROGRAM} changes            lists every change with its arguments and its place in the paper\n"
        f"{PROGRAM} compare RUN...|DIR compares branches, or all runs in a plan's directory\n"
        f"{PROGRAM} replay ...         replays one step and records everything\n"
        f"{PROGRAM} rescue RUN         trains a collapsed run again from before its collapse, under several recipes\n"
        "--SECTION.FIELD VALUE is short for --set SECTION.FIELD=VALUE, for example --eval.every 100.\n"
        "Several changes are made together; --then starts another group of changes with its own --from and --until.\n"
        "Exit codes: 0 done (with --control: and equal to the parent), 2 bad input, 130 interrupted, 1 anything else.",
    )
    add_version(parser)
    add = parser.add_argument
    add(
        "--ckpt",
        action="append",
        default=[],
        metavar="X",
        help="the parent: a checkpoint file, or a run directory (its newest checkpoint); with --plan it "
        "may be repeated, once per base run",
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
    add("--resume", metavar="RUN", help="continue a branch that was stopped or killed, exactly; needs no other option")
    add("--control", action="store_true", help="change nothing, and compare the branch with its parent at the end")
    add("--dry-run", action="store_true", help="show what would differ from the parent, without training")
    add("--quiet", action="store_true", help="no progress display")
    add("--allow-change", action="store_true", help="go on with a --change-file that was edited since the run began")
    add_permissions(parser)
    _add_timed(parser)
    _add_plan(parser)
    changes = parser.add_argument_group("changes", "VALUE is [G=|D=]ARGUMENT[,ARGUMENT ...]; x2 and /2 are relative.")
    changes.add_argument(
        "--change",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a change by name, or your own as file.py:Class or module:Class",
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


def add_permissions(parser: argparse.ArgumentParser) -> None:
    """The options that name code and permit caches, for this call and the processes that it starts."""
    add = parser.add_argument
    add("--change-file", action="append", default=[], metavar="FILE", help="a Python file (or a module) with your own "
        "changes; code that a run or a plan names is never run without it")  # fmt: skip
    add("--trust-cache", action="store_true", help="use files of the cache that belong to other users")


def add_features(parser: argparse.ArgumentParser) -> None:
    """The option that names a feature network's code, where a command has no options of fields."""
    parser.add_argument("--eval.features", dest="features", metavar="MODULE:NAME", help="permit the import of the "
        "runs' own features, where they have such")  # fmt: skip


def load_change_files(options: argparse.Namespace) -> list[ChangeFile]:
    """Run the files of changes that a command names, of which the changes are then known by name."""
    from interventions.changes import load_file

    return [load_file(path) for path in options.change_file]


def _add_timed(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--from",
        type=int,
        default=0,
        dest="since",
        metavar="N",
        help="begin the changes after N further steps (default 0)",
    )
    add("--until", type=int, metavar="N", help="undo the changes after N further steps; default: never")
    add("--then", action="store_true", help="start another group of changes, with its own --from and --until")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("plans", "Many runs, each in its own process, compared at the end.").add_argument
    add("--plan", metavar="PLAN", help="a plan's name (small-study, section-4, appendix-g ...) or YAML file")
    add("--seeds", type=int, metavar="N", help="also run the parent and the changed branch under N further seeds "
        "(default: the plan's number)")  # fmt: skip
    add("--jobs", type=int, default=1, metavar="N", help="runs at a time, one core each (default 1)")
    add("--scratch-steps", type=int, metavar="N", help="total steps of runs from scratch; default: the base run's")
    add("--slurm", action="append", metavar="KEY=VALUE", help="submit through submitit (partition=gpu, timeout_min=600 "
        "...); cluster=local uses processes on this machine")  # fmt: skip


def fields_as_set(argv: list[str]) -> list[str]:
    """The command line with every `--section.field VALUE` replaced by `--set section.field=VALUE`."""
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


def split_groups(argv: list[str]) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    for word in argv:
        if word == "--then":
            groups.append([])
        else:
            groups[-1].append(word)
    return groups


def load_named_code(groups: list[list[str]]) -> list[ChangeFile]:
    """Run the files that a command line names, by --change-file and as `--change file.py:Class=...`."""
    from interventions.changes import import_change

    found: list[ChangeFile] = []
    for words in groups:
        options = make_intervene_parser().parse_args(words)
        found += load_change_files(options)
        found += [import_change(name)[1] for name, _ in map(_named, options.change) if ":" in name]
    return found


def named_features(groups: list[list[str]]) -> str | None:
    """The feature network that a command line sets; the last one, where several."""
    options = make_intervene_parser().parse_args([word for words in groups for word in words])
    prefix = "eval.features="
    given = [text.removeprefix(prefix) for text in getattr(options, "change:set") if text.startswith(prefix)]
    return given[-1] if given else None


def without_features(groups: list[list[str]]) -> list[list[str]]:
    """The command line without `--set eval.features=...`, which with --resume permits an import and changes nothing."""
    found: list[list[str]] = []
    for words in groups:
        pairs = enumerate(itertools.pairwise(words))
        drop = {n for n, (one, two) in pairs if one == "--set" and two.startswith("eval.features=")}
        found.append([word for n, word in enumerate(words) if n not in drop and n - 1 not in drop])
    return found


def read_changes(groups: list[list[str]]) -> tuple[list[tuple[Any, int, int | None]], dict[str, Any]]:
    """The changes of a command line with their --from and --until, in further steps; and the settings: fields given
    with --set that do not affect training. The code that it names is loaded (see `load_named_code`)."""
    from biggan.config import fields
    from interventions.changes import import_change, make_change
    from interventions.changes.state import SetField

    free = {name for name, field in fields() if not field.metadata.get("numbers", True)}
    changes: list[tuple[Any, int, int | None]] = []
    settings: dict[str, Any] = {}
    for words in groups:
        options = make_intervene_parser().parse_args(words)
        given = vars(options)
        keys = [key for key in given if key.startswith("change:")]
        named = [(key.removeprefix("change:"), value) for key in keys for value in given[key]]
        for text in options.change:
            named.append(_named(text))
        for name, value in named:
            change = import_change(name)[0].read(value) if ":" in name else make_change(name, value)
            if isinstance(change, SetField) and change.field in free:
                settings[change.field] = change.value
            else:
                changes.append((change, options.since, options.until))
    for field in ("steps", "out"):
        if field in settings:
            raise UserError(f"{field} cannot be given with --set. Use --{field}.")
    return changes, settings


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--change is '{text}', expected NAME=VALUE.")
    return name, value
