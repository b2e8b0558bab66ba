"""Trains a session with all observers that its configuration asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from biggan.distributed.ranks import is_main
from biggan.observers.discriminator_view import DiscriminatorView
from biggan.observers.evaluation import Evaluation
from biggan.observers.extension import register
from biggan.observers.progress import Progress
from biggan.observers.sample_grids import SampleGrids
from biggan.observers.tensorboard import TensorBoard, open_log
from biggan.run.checkpoint import saved_steps
from biggan.run.outline import opening
from biggan.run.retention import CheckpointStore
from biggan.run.session import Session
from biggan.training.observer import Observer
from biggan.training.trainer import Trainer
from spectra.cli.output import unbreakable_output
from spectra.monitor.monitor import Monitor

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def train_session(session: Session, *, quiet: bool, until: int | None = None, further: Sequence[Observer] = ()) -> str:
    """Train a session with everything that its configuration attaches, and `further` observers; on rank 0 alone.

    Output that cannot be written is dropped. Returns what `Trainer.train` does.
    """
    with unbreakable_output(everything=True):
        return _train(session, quiet=quiet, until=until, further=further)


def _train(session: Session, *, quiet: bool, until: int | None, further: Sequence[Observer]) -> str:
    config, run = session.config, session.run
    observers = _observers(session, further, quiet=quiet) if is_main() else []
    if is_main() and not quiet:
        print("\n".join([*session.notes, *opening(session)]), flush=True)
    return Trainer(config, session.state, session.source, run, observers).train(until)


def _observers(session: Session, further: Sequence[Observer], *, quiet: bool) -> list[Observer]:
    """The observers, in the order in which they are called.

    Those that act last, the store and the display, are called after all others, `further` ones too: a step is
    recorded before its checkpoint is saved, so that a run resumed there has the whole record.
    """
    config = session.config
    log = open_log(session.run, session.state.step) if config.tensorboard.every else None
    monitor = _monitor(session, log)
    observers: list[Observer] = [
        SampleGrids(),  # first: what it draws before the first step need not wait for an evaluation's features
        Evaluation(
            (lambda text: None) if quiet else print, session.about_scores.append
        ),  # before those who act upon its events
        cast(Observer, monitor),  # has an observer's methods, without depending on this package
        DiscriminatorView(monitor.log),
        CheckpointStore(),
    ]
    if log is not None:
        observers.append(TensorBoard(log))
    observers += further
    if not quiet:
        observers.append(Progress())
    return observers


def _monitor(session: Session, log: SummaryWriter | None) -> Monitor:
    register()  # the detectors of a GAN, also where this package runs without being installed
    config, run = session.config, session.run
    return Monitor(
        session.state.networks() if config.monitor == "spectra" else {},
        run.path,
        start_step=session.state.step,
        tensorboard=log,
        saved_steps=lambda: saved_steps(run.path),
        **dataclasses.asdict(config.spectra),
    )
