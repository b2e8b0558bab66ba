"""What a kill can cut off after a run's last checkpoint, done at the next resume."""

from __future__ import annotations

import shlex
from pathlib import Path

from biggan.config import Config
from biggan.distributed.consensus import all_ranks_or_none
from biggan.distributed.ranks import is_main
from biggan.run.directory import RunDirectory, make_event
from biggan.run.retention import CheckpointStore
from biggan.run.session import ResumePoint, check_resumed
from spectra.record.segments import truncate_record


def has_finished(run: RunDirectory, step: int) -> bool:
    """Whether the run says that it finished at `step`, which is the last thing that a session writes."""
    return any(event["step"] == step for event in run.events_that_hold("finished"))


def finish_run(path: Path, config: Config, step: int) -> bool:
    """Finish a run whose last step is saved: its checkpoint's event, the link to the best, deleting checkpoints that
    are not kept, and the `finished` event.

    Returns whether something was left to do; where nothing was, nothing is written. Raises `UserError` where another
    process has the run, which may be about to finish it.
    """
    run = RunDirectory(path)
    if has_finished(run, step):
        return False
    run.lock()
    try:
        truncate_record(path, step)
        run.supersede_events(step)
        CheckpointStore().take_up(run, config, step)
        run.append_event(make_event("finished", step))
    finally:
        run.unlock()
    return True


def finish_trained(config: Config, path: Path, start: ResumePoint, *, allow_change: bool) -> str | None:
    """Finish the run in `path` if `config` asks for no further step; what to tell the user then, else None.

    Rank 0 alone writes. Raises `UserError` as `open_resumed` does, without looking at the data, and as `finish_run`.
    """
    if start.checkpoint is None or start.step != config.steps:
        return None
    check_resumed(config, path, start, allow_change=allow_change)
    with all_ranks_or_none():
        finished = is_main() and finish_run(path, start.config, start.step)
    what = "was finished, which a kill had prevented" if finished else "has finished, and nothing is left to do"
    return (
        f"the run in {path} has reached step {start.step}, and --steps is {config.steps}: it {what}. To train further, "
        f"give a larger total:\n  biggan-train --resume {shlex.quote(str(path))} --steps N"
    )
