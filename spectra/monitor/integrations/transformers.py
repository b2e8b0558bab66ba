"""The monitor as a callback of Hugging Face's Trainer: `spectra.transformers.SpectraTrainerCallback`.

    trainer = transformers.Trainer(..., callbacks=[spectra.transformers.SpectraTrainerCallback("runs/mine", every=100)])

Needs transformers only when the callback is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spectra.monitor.integrations.chosen import chosen_networks
from spectra.monitor.watch import Watch


def SpectraTrainerCallback(
    run: str | Path, networks: str | Sequence[str] | Mapping[str, str] | None = None, **settings: Any
) -> Any:
    """A callback of `transformers.Trainer` that watches its model into `run`, which `spectra.load(run)` reads.

    A step is the trainer's `global_step`. Gradients are those before clipping, of all batches that were accumulated.
    What the trainer logs (loss, learning rate, its own norm of all gradients) is recorded as scalars of its step. A
    training that goes on from a checkpoint needs the record to reach it; what lies after it is dropped. Under several
    processes the first alone records. After the start of training nothing is raised, as by `spectra.watch`.

    Args:
        run: the run directory.
        networks: attributes of the model to watch ("encoder"), or names for them ({"net": "encoder"}); None: the
            whole model, as "model".
        settings: of `spectra.Monitor`.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        TypeError, ValueError: when training begins, what `spectra.watch` raises, or an attribute that the model does
            not have.
    """
    import importlib

    callback = importlib.import_module("transformers").TrainerCallback
    kind = type("SpectraTrainerCallback", (_Events, callback), {"__doc__": SpectraTrainerCallback.__doc__})
    return kind(run, networks, settings)


class _Events:
    """The events that the trainer calls."""

    def __init__(self, run: str | Path, networks: Any, settings: Mapping[str, Any]) -> None:
        self.run, self.networks, self.settings = run, networks, dict(settings)
        self.watch: Watch | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Open the record."""
        self._close(failed=True)  # of a training that an error ended, of which no event tells
        named = chosen_networks(model, self.networks)
        if state.is_world_process_zero:
            self.watch = Watch(named, self.run, start_step=state.global_step, **self.settings)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An update is done."""
        if self.watch is not None:
            self.watch.step_to(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Record what the trainer logs, as far as it is numbers."""
        if self.watch is not None:
            numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
            self.watch.log(numbers)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep what a resumed training needs."""
        if self.watch is not None:
            self.watch.saved()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the record."""
        self._close(failed=False)

    def _close(self, *, failed: bool) -> None:
        if self.watch is not None:
            self.watch.close(failed=failed)
            self.watch = None
