"""Opening a run, new or resumed: everything is checked before anything is written."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from biggan.checkpoint import Checkpoint, newest_checkpoint
from biggan.config import Config, differences
from biggan.data import Source, open_source
from biggan.errors import UserError, check_known
from biggan.latents import LATENTS
from biggan.losses import LOSSES
from biggan.rundir import RunDirectory, check_new, default_path, make_event
from biggan.state import TrainingState
from spectra.records import truncate_record


@dataclass
class Session:
    """What a trainer is made of."""

    config: Config
    run: RunDirectory
    state: TrainingState
    source: Source
    notes: list[str] = field(default_factory=list)
    """What the user should read before training begins."""


def open_new(config: Config, preset: str) -> Session:
    """A new run of `config` in `config.out`. Raises `UserError` before anything is written."""
    path = Path(config.out) if config.out else default_path(preset)
    config = dataclasses.replace(config, out=str(path), device=resolve_device(config.device))
    check_new(path)
    source, state = _build(config)
    run = RunDirectory(path)
    run.create(config)
    run.append_event(make_event("started", 0, preset=preset))
    return Session(config, run, state, source, notes_on(config))


def find_checkpoint(path: Path) -> tuple[Checkpoint, list[str]]:
    """The checkpoint that a resumed run goes on from, and why newer ones were passed over.

    Raises `UserError` where `path` is no run directory or has no whole checkpoint.
    """
    RunDirectory(path).read_config()
    return newest_checkpoint(path)


def open_resumed(
    config: Config, path: Path, checkpoint: Checkpoint, passed: list[str], *, allow_change: bool
) -> Session:
    """The run in `path` at `checkpoint`, under `config`.

    Raises `UserError` where `config` would change the numbers and `allow_change` is off, where the run has reached
    its last step, or where the state does not fit.
    """
    if config.out is not None and Path(config.out) != Path(checkpoint.config.out or "") and Path(config.out) != path:
        raise UserError(f"--out is {config.out}, and a resumed run stays in its directory {path}. Leave --out away.")
    config = dataclasses.replace(config, out=str(path), device=resolve_device(config.device))
    changed = differences(checkpoint.config, config, numbers_only=True)
    if changed and not allow_change:
        listed = "; ".join(f"{name}: {old} -> {new}" for name, (old, new) in changed.items())
        raise UserError(
            f"these options would change the numbers of the run in {path}: {listed}. Leave them away to continue it "
            f"exactly, or give --allow-change to go on with them."
        )
    if checkpoint.step >= config.steps:
        raise UserError(
            f"the run in {path} has reached step {checkpoint.step} of {config.steps}. To train on, give --steps with "
            f"a larger total."
        )
    source, state = _build(config)
    state.load(checkpoint.tensors, checkpoint.step)
    run = RunDirectory(path)
    truncate_record(path, checkpoint.step)
    run.supersede_events(checkpoint.step)
    run.write_config(config)
    changes = {name: list(pair) for name, pair in changed.items()}
    run.append_event(make_event("resumed", checkpoint.step, passed_over=passed, changes=changes))
    notes = [f"passed over: {reason}" for reason in passed]
    return Session(config, run, state, source, [*notes, f"resuming at step {checkpoint.step}", *notes_on(config)])


def _build(config: Config) -> tuple[Source, TrainingState]:
    """Data and a fresh state, on the configured device, with the configured arithmetic."""
    use_arithmetic(config)
    check_names(config)
    source = open_source(config)
    return source, TrainingState(config, config.device)


def check_names(config: Config) -> None:
    """Raise `UserError` where the configuration names a loss or a latent distribution that there is not."""
    check_known(config.loss.name, LOSSES, "loss.name")
    check_known(config.latents.distribution, LATENTS, "latents.distribution")


def resolve_device(device: str) -> str:
    """ "cpu" or "cuda". Raises `UserError` for a GPU that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, and torch sees no GPU here. Give --device cpu, or auto.")
    return device


def use_arithmetic(config: Config) -> None:
    """Set what the bits depend on: CPU threads, and deterministic algorithms on a GPU."""
    torch.set_num_threads(config.threads)
    if config.device == "cuda":
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(config.deterministic)
        torch.backends.cudnn.benchmark = False


def notes_on(config: Config) -> list[str]:
    """What someone should know who runs `config`."""
    notes = []
    has_batchnorm = {"G": config.model.norm_G == "batch", "D": config.model.norm_D != "none"}
    normalized = [name for name, has in has_batchnorm.items() if has]
    if config.train.accumulate > 1 and normalized:
        micro = config.train.batch // config.train.accumulate
        whose = " and ".join(f"{name}'s" for name in normalized)
        notes.append(
            f"gradient accumulation: in {whose} updates BatchNorm normalizes each micro-batch of {micro} by its own "
            f"statistics, which is not what a batch of {config.train.batch} in one piece would do"
        )
    return notes
