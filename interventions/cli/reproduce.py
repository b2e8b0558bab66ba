"""`biggan-intervene reproduce`: a whole study with one command."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from biggan.cli.app import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, Parser
from biggan.errors import UserError
from interventions.cli.options import PROGRAM, add_features, add_permissions, load_change_files
from interventions.study.permit import Permit

if TYPE_CHECKING:
    from interventions.study.cost import Rates
    from interventions.study.expand import Job, Resolved
    from interventions.study.priority import StudyEntry
    from interventions.study.reproduce import Study, StudyLaunch

_PRESET = "digits-collapse"


def reproduce(argv: list[str]) -> int:
    """`biggan-intervene reproduce [PRESET]`. Returns the exit code: 0 done, 1 a run failed, 130 interrupted."""
    options = _parser().parse_args(argv)
    permit = Permit.of(load_change_files(options), options.features, trust_cache=options.trust_cache)
    study = _study(options)
    from interventions.study.launch import make_start
    from interventions.study.reproduce import Layouts, open_study, planned_jobs, run_study
    from interventions.study.worker import has_ended

    layouts = Layouts(study)
    resolved = open_study(study, layouts)
    jobs = planned_jobs(study, resolved, layouts)
    from interventions.study.cost import known_rates

    finished = [(job, study.folder / job.key) for job in jobs if has_ended(study.folder / job.key)]
    rates = known_rates(finished, layouts.factors(), study.config)
    count = _jobs(options, study)
    print(_describe(study, resolved, jobs, {job.key for job, _ in finished}, rates, count))
    if options.dry_run:
        return EXIT_DONE
    on_gpus = study.config.device != "cpu"
    start = make_start(options.slurm, study.folder, study.config.threads, permit, on_gpus=on_gpus)
    launched = run_study(layouts, start, count, rates=rates, budget=_seconds(options.budget), quiet=options.quiet)
    return _finish(study, launched, argv, quiet=options.quiet)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"{PROGRAM} reproduce",
        description="Train base runs of a preset until they collapse, branch them before it under every change of "
        "the paper, run the changes from scratch, and compare. The same command goes on after any interruption.",
    )
    add = parser.add_argument
    add("preset", nargs="?", default=_PRESET, metavar="PRESET",
        help=f"a preset, or a YAML file in its form (default: {_PRESET})")  # fmt: skip
    add("--out", required=True, metavar="DIR", help="the study's directory; base runs DIR/seed-N/plain that are "
        "trained already are used")  # fmt: skip
    add("--bases", type=int, default=8, metavar="N", help="base runs, each with its own seed (default 8)")
    add("--first-seed", type=int, default=1, metavar="N", help="the seed of the first base run (default 1)")
    add("--jobs", type=int, metavar="N", help="runs at a time (default: one for each core, or for each GPU)")
    add("--only", metavar="WORD,...", help="only what these need: places (G.1, 4.2), claims (10a, 13), plans "
        "(section-4), or plan files")  # fmt: skip
    add("--budget", metavar="TIME", help="start no run that would not end within 3h, 90m or 2d, by the estimate")
    add("--before", default="10%", metavar="SHARE", help="branch this share of the onset (10%%), or so many steps, "
        "before the onset of the collapse (default 10%%)")  # fmt: skip
    add("--branch-steps", type=int, metavar="N", help="length of a branch (default: a quarter of the preset's steps)")
    add("--seeds", type=int, default=2, metavar="N", help="further seeds of each unchanged branch (default 2)")
    add("--add", metavar="STUDY", help="a recorded study, such as a thinned copy: what was run there is not run again")
    add("--record", metavar="DIR", help="keep a thinned copy of the finished runs there, small enough to commit")
    add("--slurm", action="append", metavar="KEY=VALUE", help="submit through submitit (partition=gpu ...)")
    add("--dry-run", action="store_true", help="print what would run, with estimated time and disk, and stop")
    add("--quiet", action="store_true", help="no progress display")
    add_permissions(parser)
    add_features(parser)
    return parser


def _study(options: argparse.Namespace) -> Study:
    from interventions.compare.claims import read_claims
    from interventions.study.branching import open_added, share_or_steps, study_config
    from interventions.study.growth import study_facts
    from interventions.study.priority import choose, study_entries
    from interventions.study.reproduce import Study, default_branch_steps

    if options.bases < 1 or options.first_seed < 0 or options.seeds < 0 or (options.jobs or 1) < 1:
        raise UserError(
            f"--bases is {options.bases}, --first-seed {options.first_seed}, --seeds {options.seeds} and --jobs "
            f"{options.jobs}; expected at least 1, 0, 0 and 1."
        )
    _seconds(options.budget)
    config = study_config(options.preset)
    only = [word for word in (options.only or "").split(",") if word]
    files = [word for word in only if word.endswith((".yaml", ".yml"))]
    claims = read_claims()
    steps = default_branch_steps(config) if options.branch_steps is None else options.branch_steps
    if steps < 1:
        raise UserError(f"--branch-steps is {steps}, expected at least 1.")
    before = share_or_steps(options.before)
    facts = study_facts(options.preset, config, steps, before)
    return Study(
        folder=Path(options.out),
        preset=Path(options.preset).stem,
        config=config,
        base_seeds=tuple(range(options.first_seed, options.first_seed + options.bases)),
        entries=tuple(choose(study_entries(files, claims), only, claims)),
        branch_steps=steps,
        before=before,
        seeds=options.seeds,
        added=None if options.add is None else open_added(Path(options.add), facts),
        record=None if options.record is None else Path(options.record),
    )


def _seconds(text: str | None) -> float | None:
    """`3h`, `90m`, `2d` or `45s` in seconds. Raises `UserError` for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None or float(found[1]) == 0:
        raise UserError(f"--budget is '{text}', expected a time such as 3h, 90m or 2d.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def _jobs(options: argparse.Namespace, study: Study) -> int:
    """Runs at a time."""
    from interventions.study.launch import gpus

    if options.jobs is not None:
        return int(options.jobs)
    if study.config.device != "cpu" and (found := gpus()):
        return len(found)
    return max(len(os.sched_getaffinity(0)) // study.config.threads, 1)


def _describe(study: Study, resolved: Resolved, jobs: list[Job], finished: set[str], rates: Rates, count: int) -> str:
    """What will run, by part, with its estimated time and disk."""
    from interventions.study.cost import estimated_bytes, run_bytes

    seeds = f"{study.base_seeds[0]} to {study.base_seeds[-1]}"
    lines = [f"{resolved.title}: {len(study.base_seeds)} base runs (seeds {seeds}) in {study.folder}"]
    lines.append(f"  {'part':<22}{'runs':>6}{'done':>6}{'to run':>8}{'hours':>8}")
    plans = {one.name: one for one in study.entries}
    parts: dict[str, list[Job]] = {}
    for job in jobs:
        parts.setdefault(_part(job, plans), []).append(job)
    seconds = size = 0.0
    full = estimated_bytes(study.config)
    for part, mine in parts.items():
        waiting = [job for job in mine if job.key not in finished]
        needed = sum(rates.seconds(job) for job in waiting)
        seconds += needed
        lines.append(f"  {part:<22}{len(mine):>6}{len(mine) - len(waiting):>6}{len(waiting):>8}{needed / 3600:>8.1f}")
        done = [run_bytes(study.folder / job.key) for job in mine if job.key in finished][:3]
        size += len(waiting) * (max(done) if done else full if part == "base runs" else full / 8)
    wall = seconds / count
    lines.append(
        f"  about {wall / 3600:.1f} hours with {count} runs at a time ({rates.seconds_per_step * 1000:.0f} ms a step: "
        f"{rates.source}), and {size / 2**30:.1f} GiB of disk"
    )
    lines += [f"note: {note}" for note in resolved.notes]
    return "\n".join(lines)


def _part(job: Job, entries: dict[str, StudyEntry]) -> str:
    of_its_own = {"plain": "base runs", "branching-point": "up to branching", "control": "unchanged branches"}
    return of_its_own.get(job.entry) or entries[job.entry].plans[0]


def _finish(study: Study, launched: StudyLaunch, argv: list[str], *, quiet: bool) -> int:
    from interventions.compare.report import PAGE
    from interventions.compare.terminal import print_report
    from interventions.study.books import keep_books

    again = f"{PROGRAM} reproduce {shlex.join(argv)}"
    outcome = launched.outcome
    if outcome.interrupted:
        print(f"interrupted; every run saved its last step. To go on:\n  {again}")
        return EXIT_INTERRUPTED
    added = None if study.added is None else study.added.folder
    has_begun = any((study.folder / job.key / "events.jsonl").is_file() for job in launched.resolved.jobs)
    kept = keep_books(study.folder, study.record, added) if has_begun else None
    if kept is not None and not quiet:
        for path in kept.written:
            print(f"  {path}")
        print_report(kept.comparison, kept.verdicts, page=study.folder / PAGE)
    for key, words in outcome.failed.items():
        print(f"failed: {key}: {words}")
    if launched.left:
        listed = ", ".join(dict.fromkeys(job.entry for job in launched.left))
        print(f"the budget is spent: {len(launched.left)} runs were not started ({listed}). To go on:\n  {again}")
    return EXIT_FAILED if outcome.failed else EXIT_DONE
