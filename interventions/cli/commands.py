"""What `biggan-intervene` does with many runs: plans and comparisons."""

from __future__ import annotations

import argparse
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.cli.app import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, Parser
from biggan.errors import UserError
from biggan.run.files import check_out, shown_path
from interventions.cli.options import DEFAULT_STEPS, PROGRAM, load_change_files
from spectra.record.files import new_folder, write_text

if TYPE_CHECKING:
    from interventions.study.expand import Resolved
    from interventions.study.launch import Outcome
    from interventions.study.permit import Permit

Given = list[tuple[Any, int, int | None]]
"""Changes given on the command line, with their --from and --until."""


def run_plan(
    options: argparse.Namespace, changes: Given, settings: dict[str, Any], permit: Permit, argv: list[str]
) -> int:
    """Run a plan, or one changed branch under several seeds, or continue either; then compare. `permit` is handed to
    its workers; `argv` is the command line, which continues the plan after an interrupt."""
    from interventions.study.expand import save_resolved
    from interventions.study.launch import launch, make_start, threads_of

    resolved = resolve_plan(options, changes, settings)
    folder = Path(options.out) if options.out else Path("runs") / f"plan-{resolved.plan}"
    if options.dry_run:
        print(describe_plan(resolved, folder))
        return EXIT_DONE
    resolved = save_resolved(resolved, folder)
    start = make_start(options.slurm, folder, threads_of(resolved), permit)
    outcome = launch(resolved, folder, start, options.jobs, quiet=options.quiet)
    if outcome.interrupted:
        print(f"interrupted; every run saved its last step. To go on:\n  {shlex.join([PROGRAM, *argv])}")
        return EXIT_INTERRUPTED
    return _finish(folder, outcome, quiet=options.quiet)


def resolve_plan(options: argparse.Namespace, changes: Given, settings: dict[str, Any]) -> Resolved:
    """The plan that the command line describes, expanded and checked; nothing is written."""
    from interventions.study.expand import resolve
    from interventions.study.plan import plan_of_changes, read_plan

    if not options.ckpt:
        raise UserError("--ckpt is missing. Give the base runs of the plan, or their checkpoints.")
    if options.jobs < 1 or (options.seeds is not None and options.seeds < 0):
        raise UserError(f"--jobs is {options.jobs} and --seeds is {options.seeds}, expected at least 1 and 0.")
    if options.plan and (changes or options.control):
        what = "--control" if options.control else f"'{changes[0][0].describe()}'"
        raise UserError(f"{what} and --plan are both given, but a plan has its own changes. Omit one.")
    return resolve(
        read_plan(options.plan) if options.plan else plan_of_changes(changes, options.seeds),
        options.ckpt,
        at=options.at,
        before_collapse=options.before_collapse,
        steps=DEFAULT_STEPS if options.steps is None else options.steps,
        scratch_steps=options.scratch_steps,
        seeds=options.seeds,
        settings=settings,
        in_steps=not options.plan,
    )


def compare(argv: list[str]) -> int:
    """`biggan-intervene compare RUN...|DIR`: the claims or the tables on the terminal, with --out also as files."""
    from interventions.compare.collect import compare_plans, compare_runs
    from interventions.compare.report import verdicts_of, write_report
    from interventions.compare.terminal import print_report

    parser = Parser(
        prog=f"{PROGRAM} compare",
        description="Compare branches with their control, or all runs of a plan's directory: how far unchanged runs "
        "vary, then each change, tested within base runs against all unchanged runs.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories, or directories of plans")
    parser.add_argument("--out", metavar="DIR", help="write the tables (CSV) and report.html there")
    parser.add_argument(
        "--all", action="store_true", dest="everything", help="print every table, whole, with all measures"
    )
    options = parser.parse_args(argv)
    if options.out:
        check_out(Path(options.out))
    are_plans = all((Path(run) / "plan.json").is_file() for run in options.runs)
    found = compare_plans(options.runs) if are_plans else compare_runs(options.runs)
    verdicts = verdicts_of(found)
    written = write_report(found, options.out, verdicts) if options.out else []
    print_report(found, verdicts, page=written[-1] if written else None, everything=options.everything)
    return EXIT_DONE


def replay(argv: list[str]) -> int:
    """`biggan-intervene replay`: replay one step with everything recorded. Returns 1 if it differs from the record."""
    from interventions.branch.step_replay import describe, replay_step

    parser = Parser(
        prog=f"{PROGRAM} replay",
        description="Replay a step of a run from the last checkpoint before it, and record everything: image indices, "
        "classes, per-image logits and gradient norms. Its numbers are compared with the recorded ones.",
    )
    parser.add_argument("--ckpt", required=True, metavar="X", help="the run directory, or a checkpoint in it")
    parser.add_argument("--at", required=True, type=int, metavar="STEP", help="the step to replay (the first is 1)")
    parser.add_argument("--out", metavar="FILE", help="write a CSV file with one row per image")
    parser.add_argument("--change-file", action="append", default=[], metavar="FILE", help="a file with your own "
        "changes, where one begins between the checkpoint and the step")  # fmt: skip
    options = parser.parse_args(argv)
    load_change_files(options)
    if options.out:
        check_out(Path(options.out).parent)
    replayed = replay_step(options.ckpt, options.at)
    print(describe(replayed))
    if options.out:
        with new_folder(Path(options.out).parent):
            write_text(Path(options.out), replayed.images().to_csv(index=False))
        print(f"  {options.out}")
    return EXIT_DONE if replayed.equal else EXIT_FAILED


def describe_plan(resolved: Resolved, folder: Path) -> str:
    """The planned runs, one per line."""
    lines = [f"{resolved.title}: {len(resolved.jobs)} runs in {shown_path(folder)}"]
    lines += [f"base {base.name}: {shown_path(base.checkpoint)}, step {base.step}" for base in resolved.bases]
    for job in resolved.jobs:
        begin = 0 if job.kind == "scratch" else resolved.base_of(job).step
        words = "; ".join(timed.describe(begin) for timed in job.timed()) or "unchanged"
        length = f"{job.steps} steps" if job.kind == "scratch" else f"{job.steps} further steps"
        lines.append(f"  {job.key:<40} {job.kind:<8} {length:<20} {words}")
    lines += [f"note: {note}" for note in resolved.notes]
    return "\n".join(lines)


def _finish(folder: Path, outcome: Outcome, *, quiet: bool) -> int:
    from interventions.compare.collect import compare_plan
    from interventions.compare.report import verdicts_of, write_report
    from interventions.compare.terminal import print_report

    found = compare_plan(folder)
    verdicts = verdicts_of(found)
    page = write_report(found, folder, verdicts)[-1]
    if not quiet:
        print_report(found, verdicts, page=page)
    _draw_figures(folder)
    for key, words in outcome.failed.items():
        print(f"failed: {key}: {words}")
    return EXIT_FAILED if outcome.failed else EXIT_DONE


def _draw_figures(folder: Path) -> None:
    """Draw the paper's figures that the plan lists, for every run, into FOLDER/figures/."""
    import spectra
    from interventions.study.expand import load_resolved

    resolved = load_resolved(folder)
    for job in resolved.jobs if resolved.figures else ():
        with suppress(ValueError, FileNotFoundError):  # a run that failed, or was not monitored
            spectra.draw_figures(folder / job.key, list(resolved.figures), folder / "figures" / job.base / job.name)
