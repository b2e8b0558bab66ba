"""What a user is told of a run when it begins and when it has ended: the data, where to look, scores, commands."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from biggan.data.notes import classes_in_words
from biggan.distributed.ranks import world_size
from biggan.observers.display import clock
from biggan.run.checkpoint import all_checkpoints
from biggan.run.directory import RunDirectory
from biggan.run.ending import own_features, why_stopped
from biggan.run.files import shown_path
from spectra.cli.output import unbreakable_output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from biggan.config import Config
    from biggan.run.session import Session

Scores = dict[str, tuple[int, float]]
"""Of "raw" and "ema" weights the step of their last evaluation, and the FID."""


def opening(session: Session) -> list[str]:
    """The lines before training: what is trained, on what, and where to look meanwhile."""
    config, run = session.config, _shown(session)
    threads = "1 thread" if config.threads == 1 else f"{config.threads} threads"
    ranks = "" if world_size() == 1 else f"{world_size()} processes, each "
    lines = [f"training in {run.path} on {ranks}{config.device}, {threads}, up to step {config.steps}"]
    side = config.model.resolution
    lines.append(
        f"  data        {config.data.source}: {len(session.source.train):,} images ({len(session.source.val):,} more "
        f"held out), {side}x{side}, {classes_in_words(config.model.classes)}"
    )
    if config.samples.every:
        lines.append(f"  samples     {shlex.quote(str(run.samples))}: {_when(config, session.state.step)}")
    if config.tensorboard.every:
        lines.append(f"  TensorBoard {tensorboard_command(session)}")
    return lines


def say_the_end(session: Session, status: str, seconds: float, *, quiet: bool = False) -> None:
    """Print how training ended, by what `Trainer.train` returned, and how to go on. Output that nobody reads is
    dropped. With `quiet` only where it did not finish."""
    run = _shown(session)
    with unbreakable_output(everything=True):
        if status == "interrupted":
            again = shlex.join(["biggan-train", "--resume", str(run.path), *own_features(session.config)])
            print(f"interrupted; step {session.state.step} is saved. To go on:\n  {again}")
        elif status == "stopped":
            print(why_stopped(run))
        elif not quiet:
            print("\n".join(closing(session, seconds)))


def closing(session: Session, seconds: float) -> list[str]:
    """The lines after training: scores, files, and commands to copy. `seconds`: how long this session trained."""
    config, run, step = session.config, _shown(session), session.state.step
    checkpoint = run.checkpoints / f"step-{step:08d}.safetensors"
    lines = [f"finished at step {step}, after {clock(seconds)}."]
    if scores := last_scores(session):
        lines.append(f"  {'FID':<12}{_fid_in_words(scores)}, {config.eval.features} features")
        lines += [f"  {'':<12}{text}" for text in session.about_scores]
    if (onset := _collapse_onset(session)) is not None:
        lines.append(f"  {'collapse':<12}began at step {onset}")
    places = {
        "samples": run.samples / f"step-{step:08d}.png",
        "checkpoint": checkpoint,
        "best": run.checkpoints / "best.safetensors",
        "record": run.path / "records",
        "events": run.path / "events.jsonl",
    }
    lines += [f"  {name:<12}{shlex.quote(str(path))}" for name, path in places.items() if path.exists()]
    return [*lines, "next:", *(f"  {command}" for command in next_commands(session))]


def next_commands(session: Session) -> list[str]:
    """What can be done with a run that has ended, as lines for a shell; with one that collapsed, first what is about
    that."""
    config, run, step = session.config, _shown(session), session.state.step
    checkpoint = str(run.checkpoints / f"step-{step:08d}.safetensors")
    path = str(run.path)
    # Other laws cannot be truncated.
    truncation = ["--truncation", "0.5"] if config.latents.distribution == "normal" else []
    about_collapse = _commands_after_collapse(session)
    commands = [*about_collapse, ["biggan-sample", "--ckpt", checkpoint, *truncation]]
    commands.append(["biggan-eval", "--ckpt", checkpoint])
    before = [at for at in all_checkpoints(run.path) if at < step]
    if before and not about_collapse:
        at = max(before)
        commands.append(
            ["biggan-intervene", "--ckpt", path, "--at", str(at), "--control", "--steps", str(step - at)]
        )  # fmt: skip
    commands.append(["spectra", "plot" if config.monitor == "spectra" else "events", path])
    return [*map(shlex.join, commands), *([tensorboard_command(session)] if config.tensorboard.every else [])]


def _collapse_onset(session: Session) -> int | None:
    """The step at which the run's collapse began; None if none was detected."""
    from biggan.observers.collapse_of_run import collapse_of

    found = collapse_of(session.run.events_that_hold(through=session.state.step))
    return None if found is None else found.onset


BEFORE_COLLAPSE = 500
"""Steps before a collapse at which a control is to start, where the run has such a checkpoint."""


def _commands_after_collapse(session: Session) -> list[list[str]]:
    """To rescue a run that collapsed, and to see the collapse again from a checkpoint before it; none where no
    checkpoint is left from before."""
    onset = _collapse_onset(session)
    before = [at for at in all_checkpoints(session.run.path) if onset is not None and at < onset]
    if onset is None or not before:
        return []
    run, features = str(_shown(session).path), own_features(session.config)
    distance = BEFORE_COLLAPSE if min(before) <= onset - BEFORE_COLLAPSE else onset - min(before)
    begin = max(at for at in before if at <= onset - distance)
    again = ["biggan-intervene", "--ckpt", run, "--before-collapse", str(distance), "--control"]
    steps = session.state.step - begin
    return [
        *([["biggan-intervene", "rescue", run, *features]] if session.config.eval.every else []),
        [*again, *(["--steps", str(steps)] if steps < 1000 else []), *features],
    ]


def _shown(session: Session) -> RunDirectory:
    """The run, at its path as it is printed."""
    return RunDirectory(shown_path(session.run.path))


def tensorboard_command(session: Session) -> str:
    """The line that shows the run in TensorBoard."""
    return shlex.join(["tensorboard", "--logdir", str(_shown(session).tensorboard)])


def last_scores(session: Session) -> Scores:
    """The last FID of each kind of weights that was computed up to the session's step."""
    found: Scores = {}
    for event in session.run.events_that_hold("evaluation", session.state.step):
        take_score(found, event)
    return found


def take_score(scores: Scores, event: Mapping[str, Any]) -> None:
    """Take an `evaluation` event into account, if it has an FID."""
    if "fid" in event["scores"]:
        scores[event["weights"]] = event["step"], float(event["scores"]["fid"])


def _fid_in_words(scores: Scores) -> str:
    names = {"raw": "generator", "ema": "its average (EMA)"}
    shown = ", ".join(f"{scores[kind][1]:.1f} {name}" for kind, name in names.items() if kind in scores)
    return f"{shown}; at step {max(step for step, _ in scores.values())}"


def _when(config: Config, begin: int) -> str:
    """When grids will be drawn from step `begin` on."""
    early = sorted({one for one in config.samples.early if begin < one <= config.steps or one == begin == 0})
    if not early:
        return f"a grid every {config.samples.every} steps"
    which = f"step {early[0]}" if len(early) == 1 else f"steps {', '.join(map(str, early[:-1]))} and {early[-1]}"
    return f"a grid at {which}, then every {config.samples.every} steps"
