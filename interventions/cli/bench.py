"""`python -m interventions.cli.bench`: seconds from the command to a branch's first step, and a plan's throughput."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from biggan.cli.app import EXIT_DONE, guarded

_STEPS = 60


def main(argv: list[str] | None = None) -> int:
    """Print the table. Returns the exit code."""
    return guarded("interventions.cli.bench", _bench, sys.argv[1:] if argv is None else argv)


def _bench(argv: list[str]) -> int:
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(
        prog="python -m interventions.cli.bench", allow_abbrev=False, description=(__doc__ or "").split(": ", 1)[1]
    )
    parser.add_argument("--ckpt", metavar="X", help="a run or checkpoint; default: a new run of digits, 4 steps")
    parser.add_argument(
        "--steps", type=int, default=_STEPS, metavar="N", help=f"further steps of each branch ({_STEPS})"
    )
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        parent = options.ckpt or str(_new_parent(place))
        table = Table(*("what", "value", "how"), title="interventions")
        first = min(first_step(parent, place / f"first-{number}") for number in range(3))
        table.add_row("command to first step", f"{first:.1f} s", "smallest of 3: process start, checkpoint, one step")
        rates = {jobs: throughput(parent, options.steps, jobs, place / f"plan-{jobs}") for jobs in (1, 2)}
        for jobs, rate in rates.items():
            text = f"4 branches of {options.steps} steps, {jobs} at a time, with their start"
            table.add_row(f"plan, {jobs} process{'es' if jobs > 1 else ''}", f"{rate:.1f} steps/s", text)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        table.add_row("2 processes against 1", f"{rates[2] / rates[1]:.2f}", f"{cores} cores")
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        table.caption = f"load of the machine at the end {load:.1f}"
        Console().print(table)
    return EXIT_DONE


def first_step(parent: str, out: Path) -> float:
    """Seconds from starting `biggan-intervene --freeze D` to the end of the branch's first step."""
    code = f"""
import os, sys, time
from biggan.training import observer as observers
from interventions.cli.main import main
class Clock(observers.Observer):
    def after_step(self, step, stats):
        print(time.time(), flush=True)
        os._exit(0)
from interventions.branch import branch as replay
run = replay.run_branch
replay.run_branch = lambda branch, **kw: run(branch, **kw, observers=[Clock()])
sys.exit(main(["--ckpt", {parent!r}, "--freeze", "D", "--steps", "4", "--out", {str(out)!r}, "--quiet"]))
"""
    began = time.time()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1]) - began


def throughput(parent: str, steps: int, jobs: int, out: Path) -> float:
    """Steps a second of a plan of four branches, `jobs` at a time, the processes' start included."""
    from interventions.study.expand import resolve, save_resolved
    from interventions.study.launch import launch, local
    from interventions.study.plan import plan_of_changes

    resolved = resolve(plan_of_changes([], 3), [parent], steps=steps, settings={"samples.every": 0})
    save_resolved(resolved, out)
    began = time.perf_counter()
    outcome = launch(resolved, out, local(), jobs, quiet=True)
    assert len(outcome.finished) == 4, outcome.failed
    return 4 * steps / (time.perf_counter() - began)


def _new_parent(folder: Path) -> Path:
    run = folder / "parent"
    command = [sys.executable, "-m", "biggan.train", "--out", str(run), "--steps", "4", "--quiet", "--eval.every", "0"]
    subprocess.run(command, check=True)
    return run


if __name__ == "__main__":
    sys.exit(main())
