"""Why a run stopped by itself, and how to go back or on."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from biggan.run.checkpoint import all_checkpoints, peek
from biggan.run.directory import RunDirectory
from biggan.run.files import shown_path
from spectra.record.events import ENDINGS

if TYPE_CHECKING:
    from biggan.config import Config, TrainConfig


def has_stopped(run: RunDirectory) -> bool:
    """Whether the run's last event is that it stopped by itself."""
    return [event["event"] for event in run.events_that_hold()[-1:]] == ["stopped"]


def why_stopped(run: RunDirectory) -> str:
    """What to tell the user of a run whose last event is `stopped`: the reason and the commands that follow.

    After an alarm it names the newest checkpoint from before the onset. After a collapse, also the command that
    branches from there under several recipes.
    """
    run = RunDirectory(shown_path(run.path))
    event = run.events_that_hold("stopped")[-1]
    step = event["step"]
    if event.get("reason") != "alarm":
        return f"stopped on non-finite numbers at step {step}, which is saved; see {run.path}/events.jsonl"
    onset, cause = event.get("onset", step), event.get("cause", "unknown")
    lines = [f"stopped at step {step}, which is saved, by an alarm: {cause}, which began at step {onset}."]
    before = [path for at, path in all_checkpoints(run.path).items() if at < onset]
    lines += ["the last checkpoint from before it:", f"  {shlex.quote(str(before[-1])) if before else 'none is left'}"]
    features = own_features(run.read_config())
    if before and cause == "collapse":
        again = shlex.join(["biggan-intervene", "rescue", str(run.path), *features])
        lines += ["to train from there under several recipes:", f"  {again}"]
    later = run.continued_by(step)
    again = later or shlex.join(["biggan-train", "--resume", str(run.path), "--train.on_alarm", "continue"])
    return "\n".join([*lines, "to go on as it is:", f"  {' '.join([again, *map(shlex.quote, features)])}"])


def alarm_to_stop_at(run: RunDirectory, settings: TrainConfig, step: int, ranks: int) -> dict[str, Any] | None:
    """The alarm at which a run was to stop, where a kill came between its checkpoint of `step` and the stop; else None.

    Several `ranks` stop one step after the alarm. A run that was told to continue is not stopped by an old alarm.
    """
    saved = peek(run.checkpoints / f"step-{step:08d}.safetensors").get("config")
    if settings.on_alarm != "stop" or saved is None or json.loads(saved)["train"].get("on_alarm") != "stop":
        return None
    found: dict[str, Any] | None = None
    for event in run.events_that_hold(through=step):
        if event["event"] in ENDINGS:
            found = None
        elif event["event"] == "alarm" and event.get("cause") in settings.alarm_causes and not event.get("inherited"):
            at_hand = event["step"] == step or (ranks > 1 and event["step"] == step - 1)
            found = {name: event[name] for name in ("cause", "onset") if name in event} if at_hand else found
    return found


def own_features(config: Config) -> list[str]:
    """The option that a command which goes on with a run must be given, where the run's scores are in features of
    somebody's own: they are imported only where the call itself names them."""
    features = config.eval.features
    return ["--eval.features", features] if config.eval.every and ":" in features else []
