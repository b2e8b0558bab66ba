"""Training from Python: `biggan.train`, which does what `biggan-train` does."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biggan.choices import check_names
from biggan.config import LEFT_TO_DATA, RENAMED, Config, fields, flatten, from_dict, to_dict, unflatten
from biggan.config.presets import DEFAULT_PRESET, RENAMED_PRESETS, lay_over, preset_values
from biggan.data.sources.opening import source_for
from biggan.distributed.launch import processes
from biggan.distributed.ranks import is_main
from biggan.errors import check_known
from biggan.permissions import permitted
from biggan.run.assemble import train_session
from biggan.run.outline import say_the_end
from biggan.run.session import Session, open_new
from biggan.training.observer import Observer
from biggan.training.state import TrainingState

_UNNAMED = "python"
"""What a run of a whole `Config` has in the place of a preset's name: without `out` it is in runs/python."""


@dataclass(frozen=True)
class TrainedRun:
    """A run that `train` has ended.

    Attributes:
        path: the run directory, as `spectra.load`, `--ckpt` and `--resume` take it.
        status: "finished", "interrupted" (by a signal such as Ctrl-C, and saved) or "stopped" (by non-finite numbers or
            an alarm, where the configuration asks for it).
        config: the whole configuration, with its directory and device.
        state: G, D, the average and the optimizers, as they are after the last step.
    """

    path: Path
    status: str
    config: Config
    state: TrainingState


def train(
    config: str | Config = DEFAULT_PRESET,
    overrides: Mapping[str, Any] | None = None,
    *,
    observers: Sequence[Observer] = (),
    quiet: bool = False,
) -> TrainedRun:
    """Train a new run with all that its configuration attaches: monitor, samples, evaluations, checkpoints.

        run = biggan.train("digits", {"steps": 300, "optim.G.lr": 5e-4, "out": "runs/mine"})
        spectra.load(run.path)["spectra"]

    The bits are those of `biggan-train` with the same fields. A run is continued by `biggan-train --resume`.

    Args:
        config: a preset's name, or a configuration, such as `biggan.from_dict` makes.
        overrides: fields that differ, by dotted name ("optim.G.lr") or nested ({"optim": {"G": {"lr": 5e-4}}}).
            "out" is the run directory; without it the run is in runs/PRESET, or runs/PRESET-2 and so on. Beside a
            preset, "data.path" alone takes the kind of data and the number of classes from the data. Code that
            "eval.features" names is imported only if it is named here.
        observers: further observers. They read, and are called in this order before checkpoints are saved; an error
            in one ends the training.
        quiet: whether nothing is printed.

    Returns:
        The run, when training has ended.

    Raises:
        UserError: an unknown preset or field (with the nearest right one), a value out of its range, a directory that
            is taken, data that does not fit. Nothing is written then.

    The process keeps the arithmetic that bits depend on: `torch.set_num_threads(config.threads)`, and on a GPU
    deterministic algorithms.
    """
    given = flatten(overrides or {})
    whole = _configured(config, given)
    name = RENAMED_PRESETS.get(config, config) if isinstance(config, str) else _UNNAMED
    with processes(), permitted([given.get("eval.features")]):
        left = _left_to_data(config, given)
        return _run(open_new(whole, name, left_to_data=left), observers, quiet=quiet)


def _left_to_data(config: str | Config, given: Mapping[str, Any]) -> frozenset[str]:
    """What the data at `data.path` decides, where the path is given beside a preset."""
    takes = isinstance(config, str) and given.get("data.path") is not None
    return LEFT_TO_DATA - set(given) if takes else frozenset()


def _configured(config: str | Config, given: Mapping[str, Any]) -> Config:
    values = flatten(to_dict(Config() if isinstance(config, str) else config))
    if isinstance(config, str):
        lay_over(values, preset_values(config))
    known = [name for name, _ in fields()]
    current = {RENAMED.get(name, name): value for name, value in given.items()}
    for name in current:
        check_known(name, known, "field of the configuration:")
    lay_over(values, current)
    if "data.source" in _left_to_data(config, given):
        values["data.source"] = source_for(values["data.path"], values["data.source"])
    whole: Config = from_dict(unflatten(values))
    check_names(whole)
    return whole


def _run(session: Session, observers: Sequence[Observer], *, quiet: bool) -> TrainedRun:
    began = time.monotonic()
    status = train_session(session, quiet=quiet, further=observers)
    if is_main() and not quiet:
        say_the_end(session, status, time.monotonic() - began)
    config = dataclasses.replace(session.config, out=str(session.run.path))
    return TrainedRun(session.run.path, status, config, session.state)
