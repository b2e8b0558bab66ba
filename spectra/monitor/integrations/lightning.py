"""The monitor as a Lightning callback (extra `lightning`): `spectra.lightning.SpectraCallback`.

    trainer = lightning.pytorch.Trainer(callbacks=[spectra.lightning.SpectraCallback("runs/mine", every=20)])

Needs Lightning only when the callback is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.monitor.monitor import Monitor

if TYPE_CHECKING:
    from torch import nn


def SpectraCallback(
    run: str | Path,
    networks: Sequence[str] | Mapping[str, str] | None = None,
    **settings: Any,
) -> Any:
    """A Lightning callback that watches a module's networks into `run`, whose record `spectra.load(run)` reads.

    A step is one training batch, in automatic and in manual optimization. A network's gradients are taken in front of
    the step of the optimizer that holds its parameters; the metrics of `self.log` are recorded as scalars. A fit that
    goes on from a checkpoint needs the record to reach it; what lies after it is dropped. Under several processes the
    first alone records.

    Args:
        run: the run directory.
        networks: attributes of the module to watch ("encoder"), or names for them ({"net": "encoder"}); None: the
            whole module, as "model".
        settings: of `spectra.Monitor`.

    Raises:
        ModuleNotFoundError: Lightning is not installed.
        ValueError: on fit, what `spectra.Monitor` raises, or an attribute that the module does not have.
    """
    import importlib

    callback = importlib.import_module("lightning.pytorch.callbacks").Callback
    kind = type("SpectraCallback", (_Hooks, callback), {"__doc__": SpectraCallback.__doc__})
    return kind(run, networks, settings)


class _Hooks:
    """The hooks that Lightning calls."""

    def __init__(
        self, run: str | Path, networks: Sequence[str] | Mapping[str, str] | None, settings: Mapping[str, Any]
    ) -> None:
        super().__init__()
        if isinstance(networks, str):
            networks = [networks]
        self.run, self.settings = run, dict(settings)
        self.networks = networks if networks is None or isinstance(networks, Mapping) else {n: n for n in networks}
        self.monitor: Monitor | None = None
        self._step = 0

    def _named(self, module: nn.Module) -> dict[str, nn.Module]:
        if self.networks is None:
            return {"model": module}
        missing = [path for path in self.networks.values() if not hasattr(module, path)]
        if missing:
            raise ValueError(f"the module has no attribute {missing[0]!r} to watch")
        return {name: getattr(module, path) for name, path in self.networks.items()}

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint holds of the callback: the number of training batches done."""
        return {"step": self._step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore the number of training batches done."""
        self._step = state["step"]

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the record."""
        if trainer.is_global_zero:
            named = self._named(pl_module)
            self.monitor = Monitor(named, self.run, start_step=self._step, **self.settings)
            self._parameters = {name: {id(p) for p in network.parameters()} for name, network in named.items()}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Called before the update, while the weights are unchanged."""
        if self.monitor is not None:
            for name in self._parameters:
                self.monitor.before_update(name)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """The optimizer's gradients are complete, before clipping."""
        if self.monitor is None:
            return
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, mine in self._parameters.items():
            if mine & held:
                self.monitor.after_backward(name)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """One step is done; a batch without an optimizer's step (accumulation) has no gradients of its own."""
        self._step += 1
        if self.monitor is not None:
            for name in self._parameters:
                self.monitor.skip(name)
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.monitor.after_step(self._step, metrics)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        """Keep what a resumed fit needs."""
        if self.monitor is not None:
            self.monitor.on_checkpoint(self._step)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """End the record."""
        self._close("finished")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the record; nothing more is drawn."""
        self._close("failed")

    def _close(self, status: str) -> None:
        if self.monitor is not None:
            self.monitor.on_end(status)
            self.monitor = None
