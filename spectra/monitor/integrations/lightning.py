"""The monitor as a Lightning callback (extra `lightning`): `spectra.lightning.SpectraCallback`.

    trainer = lightning.pytorch.Trainer(callbacks=[spectra.lightning.SpectraCallback("runs/mine", every=20)])

Needs Lightning only when the callback is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spectra.monitor.integrations.chosen import chosen_networks
from spectra.monitor.watch import Watch


def SpectraCallback(
    run: str | Path,
    networks: str | Sequence[str] | Mapping[str, str] | None = None,
    *,
    step_of: str | None = None,
    **settings: Any,
) -> Any:
    """A Lightning callback that watches a module's networks into `run`, whose record `spectra.load(run)` reads.

    In automatic optimization a step is Lightning's `global_step`: under `accumulate_grad_batches` one of several
    batches, with the gradients of all of them. In manual optimization it is a batch in which an optimizer stepped.
    Gradients are those before clipping. The metrics of `self.log` are recorded as scalars. A fit that goes on from a
    checkpoint needs the record to reach it; what lies after it is dropped. Under several processes the first alone
    records. After the start of a fit nothing is raised, as by `spectra.watch`.

    Args:
        run: the run directory.
        networks: attributes of the module to watch ("encoder"), or names for them ({"net": "encoder"}); None: the
            whole module, as "model".
        step_of: in manual optimization, the network whose updates are the steps: a step may then hold several updates
            of another one.
        settings: of `spectra.Monitor`.

    Raises:
        ModuleNotFoundError: Lightning is not installed.
        TypeError, ValueError: on fit, what `spectra.watch` raises, an attribute that the module does not have, or
            `step_of` that is not among the networks.
    """
    import importlib

    callback = importlib.import_module("lightning.pytorch.callbacks").Callback
    kind = type("SpectraCallback", (_Hooks, callback), {"__doc__": SpectraCallback.__doc__})
    return kind(run, networks, step_of, settings)


class _Hooks:
    """The hooks that Lightning calls."""

    def __init__(self, run: str | Path, networks: Any, step_of: str | None, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.run, self.networks, self.step_of, self.settings = run, networks, step_of, dict(settings)
        self.watch: Watch | None = None
        self._step = 0

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint holds of the callback: the number of steps done."""
        return {"step": self._step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore the number of steps done."""
        self._step = state["step"]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the record; Lightning knows by now at which step the fit begins."""
        named = chosen_networks(pl_module, self.networks)
        if self.step_of is not None and self.step_of not in named:
            raise ValueError(f"step_of={self.step_of!r} is none of the networks that are watched: {', '.join(named)}")
        if self._counts_global_steps(pl_module):
            self._step = trainer.global_step
        if trainer.is_global_zero:
            counts = not self._counts_global_steps(pl_module)
            self.watch = Watch(named, self.run, start_step=self._step, counts_updates=counts, **self.settings)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A batch is done, and with it a step if there was an update."""
        if self.watch is None:
            return
        if self._counts_global_steps(pl_module):
            self._step = trainer.global_step
        elif self.step_of in self.watch.updated or (self.step_of is None and self.watch.updated):
            self._step += 1
        self.watch.step_to(self._step, dict(trainer.callback_metrics))

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        """Keep what a resumed fit needs."""
        if self.watch is not None:
            self.watch.saved()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the record."""
        self._close(failed=False)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the record; nothing more is drawn."""
        self._close(failed=True)

    def _counts_global_steps(self, module: Any) -> bool:
        return bool(module.automatic_optimization) and self.step_of is None

    def _close(self, *, failed: bool) -> None:
        if self.watch is not None:
            self.watch.close(failed=failed)
            self.watch = None
