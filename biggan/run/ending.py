"""Why a run stopped by itself, and how to go back or on."""

from __future__ import annotations

from biggan.run.checkpoint import all_checkpoints
from biggan.run.directory import RunDirectory


def has_stopped(run: RunDirectory) -> bool:
    """Whether the run's last event is that it stopped by itself."""
    return [event["event"] for event in run.events_that_hold()[-1:]] == ["stopped"]


def why_stopped(run: RunDirectory) -> str:
    """What to tell the user of a run whose last event is `stopped`: the reason and the commands that follow.

    After an alarm it names the newest checkpoint from before the onset. After a collapse, also the command that
    branches from there under several recipes.
    """
    event = run.events_that_hold("stopped")[-1]
    step = event["step"]
    if event.get("reason") != "alarm":
        return f"stopped on non-finite numbers at step {step}, which is saved; see {run.path}/events.jsonl"
    onset, cause = event.get("onset", step), event.get("cause", "unknown")
    lines = [f"stopped at step {step}, which is saved, by an alarm: {cause}, which began at step {onset}."]
    before = [path for at, path in all_checkpoints(run.path).items() if at < onset]
    lines += ["the last checkpoint from before it:", f"  {before[-1] if before else 'none is left'}"]
    if before and cause == "collapse":
        lines += ["to train from there under several recipes:", f"  biggan-intervene rescue {run.path}"]
    again = run.continued_by(step) or f"biggan-train --resume {run.path} --train.on_alarm continue"
    return "\n".join([*lines, "to go on as it is:", f"  {again}"])
