"""`python -m biggan.bench [PRESET] [--any.option VALUE]`, and its other reports: --ablate, --growth, --watching,
--gpu-report."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from biggan.bench.machine import LEAST_TIMED
from biggan.cli.app import EXIT_DONE, guarded
from biggan.errors import UserError

REPORTS = {
    "ablate": "the speed with each switch of `speed` on and off, on three presets",
    "growth": "how a step's cost grows with channels, resolution and batch",
    "watching": "what a monitor adds to a step, at the preset's schedule and at every step",
    "gpu_report": "the roofline of one GPU, its largest batch, time against batch, the cost of the monitor",
}


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table or one JSON object. Returns the exit code: 0 done, 2 bad input, 1 anything else."""
    argv = sys.argv[1:] if argv is None else argv
    return guarded("biggan.bench", _bench, argv, stopped="stopped; nothing is kept.", kept="Nothing is kept.")


def _bench(argv: list[str]) -> int:
    arguments, rest = _parser().parse_known_args(argv)
    asked = [name for name in REPORTS if getattr(arguments, name)]
    if len(asked) > 1:
        raise UserError(f"--{asked[0]} and --{asked[1].replace('_', '-')} are two reports. Give only one of them.")
    if (arguments.only or arguments.compiled) and asked != ["ablate"]:
        raise UserError("--only and --compiled need --ablate. Add it, or omit them.")
    if arguments.rounds < 1:
        raise UserError(f"--rounds is {arguments.rounds}, expected at least 1.")
    found, show = _report(asked[0], arguments, rest) if asked else _one(arguments, rest)
    if arguments.json:
        print(json.dumps(found))
    else:
        show(found)
    return EXIT_DONE


def _one(arguments: argparse.Namespace, rest: list[str]) -> tuple[dict[str, Any], Callable]:
    """One configuration's speed, and what prints it."""
    from biggan.bench.measure import measure
    from biggan.bench.tables import print_one
    from biggan.cli.options import parse

    line = parse(rest)
    if useless := [name for name in ("resume", "allow_change", "quiet", "dry_run") if line.flags[name]]:
        raise UserError(f"--{useless[0].replace('_', '-')} has no effect on the benchmark. Omit it.")
    found = measure(line.config(), seconds=arguments.seconds, most=arguments.timed_steps)
    return {"preset": line.preset, **found}, print_one


def _report(name: str, arguments: argparse.Namespace, rest: list[str]) -> tuple[dict[str, Any], Callable]:
    """A report over several configurations, and what prints it."""
    from biggan.bench import tables

    if name == "ablate":
        from biggan.bench.ablate import ablate

        only = [name.strip() for name in arguments.only.split(",") if name.strip()]
        found = ablate(rest, rounds=arguments.rounds, log=_progress, compiled=arguments.compiled, only=only)
        return found, tables.print_ablation
    if name == "growth":
        from biggan.bench.growth import grow

        return grow(rest, rounds=arguments.rounds, log=_progress), tables.print_growth
    if name == "watching":
        from biggan.bench.watching import watching

        return watching(rest, rounds=arguments.rounds, log=_progress), tables.print_watching
    from biggan.bench.gpu import gpu_report

    return gpu_report(rest, rounds=arguments.rounds, log=_progress), tables.print_gpu


def _progress(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m biggan.bench",
        allow_abbrev=False,
        usage="python -m biggan.bench [PRESET ...] [--section.field VALUE ...] [--ablate | --growth | --watching | "
        "--gpu-report] [--json]",
        description="Measure training and loading speed of a configuration on this machine. Takes biggan-train's "
        "presets and options; --ablate takes several presets, and applies the options to all. Nothing is written.",
    )
    add = parser.add_argument
    add("--seconds", type=float, default=5.0, metavar="S", help="time for each measurement (default 5)")
    add(
        "--timed-steps",
        type=int,
        default=50,
        metavar="N",
        help=f"at most N timed steps (default 50; at least {LEAST_TIMED})",
    )
    for name, text in REPORTS.items():
        add(f"--{name.replace('_', '-')}", action="store_true", help=f"report {text}")
    add("--compiled", action="store_true", help="with --ablate: also time speed.compile (compiling takes minutes)")
    add("--only", default="", metavar="NAME,...", help="with --ablate: only these variants, and the plain networks")
    add("--rounds", type=int, default=3, metavar="N", help="timed steps of each variant in a report (default 3)")
    add("--json", action="store_true", help="print one JSON object")
    return parser
