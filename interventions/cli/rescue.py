"""`biggan-intervene rescue`: what saves a collapsed run."""

from __future__ import annotations

import json
import shlex
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from biggan.cli.app import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, Parser
from biggan.errors import UserError
from biggan.run.files import shown_path
from interventions.cli.options import PROGRAM, add_features, add_permissions, load_change_files
from interventions.study.permit import Permit

if TYPE_CHECKING:
    import argparse

    from interventions.compare.ranking import RankedBranch, Ranking
    from interventions.study.rescue import Rescue


def make_rescue_parser() -> Parser:
    """The parser of `biggan-intervene rescue`."""
    parser = Parser(
        prog=f"{PROGRAM} rescue",
        description="Train a collapsed run again from its newest checkpoint before the collapse, under several recipes "
        "and unchanged under another seed; rank what survives, and print the command that goes on with the winner. "
        "The same command again continues after a kill.",
        epilog="Exit codes: 0 something survived, 1 nothing did or a branch failed, 2 bad input, 130 interrupted.",
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run directory in which a collapse was detected")
    add("--recipes", default="default", metavar="NAME|FILE", help="a plan with the recipes: default, or a YAML file")
    add("--jobs", type=int, default=1, metavar="N", help="branches at a time, one core each (default 1)")
    add("--out", metavar="DIR", help="the rescue's directory; default: RUN-rescue, beside RUN")
    add("--before", type=int, default=1, metavar="N", help="start at least N steps before the onset (default 1)")
    add(
        "--steps",
        type=int,
        metavar="N",
        help="further steps of each branch; default: to the old onset, and further by half of it",
    )
    add("--seeds", type=int, metavar="N", help="other seeds for the unchanged run (default: the plan's number)")
    add("--slurm", action="append", metavar="KEY=VALUE", help="submit through submitit, as with --plan")
    add("--dry-run", action="store_true", help="show what would run, without training")
    add("--json", action="store_true", help="print the ranking as one JSON object, and nothing else")
    add("--quiet", action="store_true", help="no progress display")
    add_permissions(parser)
    add_features(parser)
    return parser


def rescue(argv: list[str]) -> int:
    """Lay out, train, rank. Returns the exit code."""
    options = make_rescue_parser().parse_args(argv)
    if options.jobs < 1:
        raise UserError(f"--jobs is {options.jobs}, expected at least 1.")
    from biggan.permissions import permitted
    from interventions.study.rescue import default_place, plan_rescue

    permit = Permit.of(load_change_files(options), options.features, trust_cache=options.trust_cache)
    found = plan_rescue(options.run, options.recipes, before=options.before, steps=options.steps, seeds=options.seeds)
    folder = Path(options.out) if options.out else default_place(found.run)
    if options.dry_run:
        from interventions.cli.commands import describe_plan

        print(describe_plan(found.resolved, folder))
        return EXIT_DONE
    with permitted([options.features], trust_cache=options.trust_cache):
        return _run(found, folder, permit, options, [PROGRAM, "rescue", *argv])


def _run(found: Rescue, folder: Path, permit: Permit, options: argparse.Namespace, command_line: list[str]) -> int:
    from interventions.compare.ranking import rank_rescue
    from interventions.study.expand import save_resolved
    from interventions.study.launch import launch, make_start, threads_of
    from interventions.study.rescue import command_to_go_on

    found = replace(found, resolved=save_resolved(found.resolved, folder))
    quiet = options.quiet or options.json
    if not quiet:
        jobs = len(found.resolved.jobs)
        print(
            f"{found.run} collapsed at step {found.onset}: {jobs} branches from step {found.begin} to {found.end}, "
            f"in {shown_path(folder)}",
            flush=True,
        )
    start = make_start(options.slurm, folder, threads_of(found.resolved), permit)
    outcome = launch(found.resolved, folder, start, options.jobs, quiet=quiet)
    if outcome.interrupted:
        if not quiet:
            _show(rank_rescue(found, folder), None)
        print(f"interrupted; every branch saved its last step. To go on:\n  {shlex.join(command_line)}")
        return EXIT_INTERRUPTED
    ranking = rank_rescue(found, folder)
    winner = ranking.winner
    place = folder if options.json else shown_path(folder)
    command = None if winner is None or winner.key is None else command_to_go_on(found, place, winner.key, permit)
    if options.json:
        facts = {"run": str(found.run), "out": str(folder), "failed": outcome.failed}
        print(json.dumps({**facts, **ranking.as_json(), "command": command}))
    else:
        _show(ranking, command)
        print(f"all measures: {PROGRAM} compare {shlex.quote(str(shown_path(folder)))}")
        for key, words in outcome.failed.items():
            print(f"failed: {key}: {words}")
    return EXIT_DONE if winner is not None and not outcome.failed else EXIT_FAILED


def _show(ranking: Ranking, command: str | None) -> None:
    """The table, what it shows, and how to go on."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))  # fits 80 columns
    for name in ("recipe", "survived", "collapse", "best FID", "last FID", "cost", "spread"):
        table.add_column(name, justify="left" if name in ("recipe", "survived") else "right", no_wrap=True)
    for row in ranking.rows:
        table.add_row(*_cells(row, ranking), style="bold green" if row is ranking.winner else None)
    print()
    Console().print(table)
    print()
    text = (
        f"FIDs are medians of 5, of raw weights, after step {ranking.begin}. The cost is the last one relative to "
        f"{ranking.healthy_fid:.1f}, the best while the run was healthy."
    )
    if (step := ranking.blind_after()) is not None:
        text += f" Survivors are ranked by it. A collapse that began after step {step} would not be visible yet."
    for line in (text, *(f"note: {note}" for note in ranking.notes), ranking.verdict()):
        print(textwrap.fill(line, width=100, break_long_words=False, break_on_hyphens=False))
    if command is not None and ranking.winner is not None:
        print(f"to go on with the winner, {ranking.winner.recipe}:\n  {command}")


def _cells(row: RankedBranch, ranking: Ranking) -> list[str]:
    words = {"not begun": "not yet", "not finished": "not yet", "failed": "failed"}
    survived = {True: "yes", False: "no", None: words.get(row.state, "unknown")}[row.survived]
    collapse = "" if row.collapse is None else f"{row.collapse}"
    numbers = [row.best_fid, row.last_fid, ranking.cost(row.last_fid), row.last_spread]
    shown = [f"{value:.{digits}f}" for value, digits in zip(numbers, (1, 1, 2, 2), strict=True)]
    return [row.recipe, survived, collapse, *(shown if row.has_begun else [""] * len(shown))]
