"""Runs one job of a plan in its own process, from the beginning or from where it stopped."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.cli.app import EXIT_DONE, EXIT_OF, guarded
from biggan.errors import UserError
from biggan.run.directory import RunDirectory
from biggan.training.observer import Observer
from interventions.study.plan import PLAIN
from spectra.record.files import append_line, replacing

if TYPE_CHECKING:
    from biggan.config import Config
    from biggan.training.trainer import Trainer
    from interventions.study.expand import Base, Job, Resolved
    from interventions.study.permit import Permit

BEAT_SECONDS = 1.0
LOCK_SECONDS = 60.0


def run_job(folder: str | Path, key: str, permit: Permit | None = None) -> str:
    """Run the job `key` of the plan in `folder` to its end, from wherever it is; "finished", "interrupted", "stopped".

    `permit` is what the launcher's caller permits. Raises `UserError` if the job's parent is gone or has changed, and
    if it needs code that is not permitted, or that has changed since.
    """
    from interventions.study.permit import Permit

    with (permit or Permit()).in_force():
        return _run_job(Path(folder), key)


def _run_job(folder: Path, key: str) -> str:
    from interventions.study.expand import load_resolved

    resolved = load_resolved(folder)
    job = resolved.job(key)
    out = folder / job.base / job.name
    if has_ended(out):
        return "finished"
    beat = Heartbeat(folder, key)
    if (out / "config.yaml").is_file():
        return _continue(job, out, beat)
    shutil.rmtree(out, ignore_errors=True)  # cut off while it was made
    return _begin(resolved, job, out, beat)


def _again(*arguments: Any) -> Any:
    """What submitit puts into the queue when a time limit or a more urgent job ends this one: the same job, which goes
    on from its last state."""
    from submitit.helpers import DelayedSubmission

    return DelayedSubmission(run_job, *arguments)


run_job.checkpoint = _again  # type: ignore[attr-defined] # the name by which submitit looks for it


def has_ended(out: Path) -> bool:
    """Whether the run has ended: at its last step, or stopped by itself, as configured."""
    events = RunDirectory(out).events_that_hold()
    return bool(events) and events[-1]["event"] in ("finished", "stopped")


def _begin(resolved: Resolved, job: Job, out: Path, beat: Heartbeat) -> str:
    from biggan.run.session import open_new
    from interventions.branch.branch import plan_branch, run_branch
    from interventions.changes import with_fields
    from interventions.changes.recorded import sources_of

    base = resolved.base_of(job)
    if job.kind != "scratch":
        branch = plan_branch(load_parent(base), job.timed(), job.steps, out, resolved.settings)
        return run_branch(branch, quiet=True, observers=[beat])
    if resolved.study is not None:
        config, lineage = base_config(resolved.study, base.seed), {"seed": base.seed}
    else:
        parent = load_parent(base)
        config, lineage = parent.checkpoint.config, parent.lineage
    # A study's base runs keep the preset's checkpoints: branches start from them.
    settings = {} if resolved.study is not None and job.entry == PLAIN else resolved.settings
    config = with_fields(config, {**settings, "steps": job.steps, "out": str(out)})
    changes = [timed.change for timed in job.timed()]
    for change in changes:
        config = with_fields(config, change.fields(config))
    facts = {"base": lineage, "changes": list(job.changes)}
    facts |= {"code": code} if (code := sources_of(changes)) else {}
    return _train(open_new(config, f"{resolved.plan}/{job.name}", facts), beat)


def base_config(study: Mapping[str, Any], seed: int | None) -> Config:
    """The configuration of a study's base run of this seed."""
    from biggan.config import from_dict
    from interventions.changes import with_fields

    return with_fields(from_dict(study["config"]), {"seed": seed})


def _continue(job: Job, out: Path, beat: Heartbeat) -> str:
    from biggan.run.finishing import finish_run
    from biggan.run.session import find_start, open_resumed
    from interventions.branch.branch import continue_branch

    _wait_for_lock(out)
    if job.kind != "scratch":
        return continue_branch(out, quiet=True, observers=[beat])
    start = find_start(out)
    config = dataclasses.replace(start.config, steps=job.steps)
    if start.step >= job.steps:
        finish_run(out, start.config, start.step)
        return "finished"
    return _train(open_resumed(config, out, start, allow_change=False), beat)


def _train(session: Any, beat: Heartbeat) -> str:
    from biggan.run.assemble import train_session

    return train_session(session, quiet=True, further=[beat])


def load_parent(base: Base) -> Any:
    """The parent that a plan remembers, verified. Raises `UserError` where it is missing or another one."""
    from interventions.branch.parent import find_parent

    if not Path(base.checkpoint).is_file():
        raise UserError(
            f"the parent {base.checkpoint} of {base.name} is missing. Restore it, or begin another plan "
            f"with another --out."
        )
    parent = find_parent(base.checkpoint)
    if parent.checkpoint.digest != base.digest:
        raise UserError(
            f"the parent {base.checkpoint} of {base.name} has changed since the plan began: its digest differs."
        )
    return parent


def _wait_for_lock(out: Path) -> None:
    """A killed launcher's worker finishes its step and saves; give it time to release the run."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            run = RunDirectory(out)
            run.lock()
            run.unlock()
            return
        except UserError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


class Heartbeat(Observer):
    """Writes the step to FOLDER/progress/ for the launcher's display, and ends training when the launcher is gone."""

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / "progress" / f"{key.replace('/', '--')}.json"
        self.path.parent.mkdir(exist_ok=True)
        self.last = 0.0

    def on_start(self, trainer: Trainer) -> None:
        """Write the first step."""
        self.first, self.began = trainer.state.step, time.time()
        self._write(trainer.state.step)

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """Write the step, at most once a second."""
        if time.monotonic() - self.last > BEAT_SECONDS:
            self._write(step)

    def on_end(self, status: str) -> None:
        """Do nothing: the run's events record how it ended."""

    def _write(self, step: int) -> None:
        self.last = time.monotonic()
        said = {"step": step, "first": self.first, "began": self.began, "time": time.time(), "pid": os.getpid()}
        with replacing(self.path, durable=False) as temporary:
            temporary.write_text(json.dumps(said))


def leave_with(parent: int) -> None:
    """End this process as Ctrl-C does (the step is finished and saved) when the process `parent` is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main(argv: list[str]) -> int:
    """`python -m interventions.study.worker FOLDER KEY LAUNCHER [PERMIT]`: what the local launcher starts."""
    from interventions.study.permit import add_permit, read_permit

    parser = argparse.ArgumentParser(prog="interventions.study.worker", allow_abbrev=False)
    for name in ("folder", "key", "launcher"):
        parser.add_argument(name)
    add_permit(parser)
    options = parser.parse_args(argv)
    leave_with(int(options.launcher))

    def job(_: list[str]) -> int:
        status = run_job(options.folder, options.key, read_permit(options))
        return EXIT_DONE if status == "stopped" else EXIT_OF[status]

    return guarded("biggan-intervene", job, argv)


def note(folder: Path, kind: str, **fields: Any) -> None:
    """Add a line to the plan's list of events."""
    append_line(folder / "launches.jsonl", json.dumps({"event": kind, "time": round(time.time(), 3), **fields}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
