"""`biggan-intervene`: branch a run with one thing changed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from biggan.cli.app import EXIT_DONE, guarded
from biggan.errors import UserError
from interventions.cli.options import (
    PROGRAM,
    fields_as_set,
    load_named_code,
    make_intervene_parser,
    named_features,
    read_changes,
    refuse_options,
    split_groups,
    without_features,
)

if TYPE_CHECKING:
    import argparse

_COMMANDS = {
    "claims": "claims",
    "compare": "commands",
    "replay": "commands",
    "reproduce": "reproduce",
    "rescue": "rescue",
}
"""Subcommand -> the module of `interventions.cli` that has it."""


def main(argv: list[str] | None = None) -> int:
    """`biggan-intervene`. Returns the exit code: 0 done, 2 bad input, 130 interrupted (saved), 1 anything else; with
    --control 1 also where the branch differs from its parent."""
    argv = sys.argv[1:] if argv is None else argv
    return guarded(PROGRAM, _intervene, argv)


def _intervene(argv: list[str]) -> int:
    if argv[:1] == ["changes"]:
        return _list_changes()
    if argv[:1] and argv[0] in _COMMANDS:
        import importlib

        return getattr(importlib.import_module(f"interventions.cli.{_COMMANDS[argv[0]]}"), argv[0])(argv[1:])
    groups = split_groups(fields_as_set(argv))
    options = make_intervene_parser().parse_args([word for words in groups for word in words])
    features = named_features(groups)
    if options.resume:
        options = make_intervene_parser().parse_args([word for words in without_features(groups) for word in words])
    from biggan.permissions import permitted

    with permitted([features], trust_cache=options.trust_cache):
        return _branch_or_plan(groups, options, features, argv)


def _branch_or_plan(groups: list[list[str]], options: argparse.Namespace, features: str | None, argv: list[str]) -> int:
    """One branch or many, new or resumed, within what the command line, `argv`, permits."""
    if options.resume:
        others = ("--ckpt", "--at", "--before-collapse", "--out", "--control", "--dry-run", "--plan", "--seeds")
        refuse_options(options, others, "cannot go with --resume, which takes all settings from the branch")
        if any(value for name, value in vars(options).items() if name == "change" or name.startswith("change:")):
            raise UserError("--resume continues a branch unchanged. To change something, branch from it: --ckpt RUN.")
        load_named_code(groups)
        from interventions.cli.branch import resume

        return resume(options)
    files = load_named_code(groups)
    changes, settings = read_changes(groups)
    if options.plan or options.seeds:
        from interventions.cli.commands import run_plan
        from interventions.study.permit import Permit

        refuse_options(options, ("--allow-change",), "cannot be used with --plan or --seeds, which begin new branches")
        permit = Permit.of(files, features, trust_cache=options.trust_cache)
        return run_plan(options, changes, settings, permit, argv)
    refuse_options(options, ("--slurm", "--scratch-steps", "--jobs"), "cannot be used without --plan or --seeds")
    from interventions.cli.branch import run_one

    return run_one(options, changes, settings)


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
