"""`spectra.watch`: a monitor for any training loop in three lines, which is never the reason that training stops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.monitor.hooks import UpdateHooks
from spectra.monitor.measuring import Failure, error_in_words
from spectra.monitor.monitor import Monitor
from spectra.monitor.outlets import warn

if TYPE_CHECKING:
    from types import TracebackType

    from torch import nn

    from spectra.monitor.schedule import Schedule


def watch(
    networks: nn.Module | Mapping[str, nn.Module],
    run: str | Path,
    *,
    optimizer: Any = None,
    every: int | Schedule = 100,
    start_step: int = 0,
    **settings: Any,
) -> Watch:
    """Measure networks while they train, into the run directory `run`; `spectra.load(run)` gives it back.

        with spectra.watch({"G": G, "D": D}, "runs/x", optimizer=[opt_G, opt_D], every=100) as monitor:
            for batch in batches:
                ...  # the loop as it is: any number of updates of D, then one of G
                monitor.step(loss_G=loss_G, loss_D=loss_D)

    The optimizers' hooks find the updates. Gradients are those of each network's last update in a step, after
    accumulation and averaging over processes, before clipping, and without the scale of a `GradScaler`. No bit of the
    training changes, and nothing is raised into it: what fails is an event `not_measured` in the run's events, and a
    write that fails is warned of once. Under several processes the first alone measures.

    Args:
        networks: a network, which is then called "model"; or networks by name. What `torch.compile` or
            DistributedDataParallel wrapped goes by its names without them.
        run: the run directory; it is made where it is missing.
        optimizer: a torch optimizer or several, whose steps are the updates. None: every torch optimizer that holds
            parameters of the networks.
        every: measure every N steps, or by a schedule (`spectra.Logarithmic()`, ...).
        start_step: the last step done: more than 0 goes on with the record in `run`, dropping what lies after it.
        settings: further arguments of `spectra.Monitor`: `on_alarm`, `sinks`, `tensorboard`, `probes`, `top_k`, ...

    Raises:
        TypeError, ValueError: what is wrong is said here: what `spectra.Monitor` raises; no optimizer, or one that
            holds no parameter of the networks.
        OSError: the run directory cannot be written.
    """
    return Watch(networks, run, optimizer=optimizer, every=every, start_step=start_step, **settings)


class Watch:
    """What `spectra.watch` returns. After construction no method raises.

    Attributes:
        monitor: the `spectra.Monitor` that measures; None in processes other than the first, where nothing happens,
            and after `close`.
        last_step: the last step done.
    """

    def __init__(
        self,
        networks: nn.Module | Mapping[str, nn.Module],
        run: str | Path,
        *,
        optimizer: Any = None,
        start_step: int = 0,
        counts_updates: bool = False,
        **settings: Any,
    ) -> None:
        self.monitor: Monitor | None = None
        self.last_step = start_step
        self._hooks: UpdateHooks | None = None
        optimizers = None if optimizer is None else _optimizers(optimizer)
        if not _is_first_process():
            return
        settings.setdefault("on_failed_write", "warn")
        monitor = Monitor(networks, run, start_step=start_step, **settings)
        try:
            _check_held(monitor, optimizers)
        except ValueError:
            monitor.close()
            raise
        self.monitor = monitor
        self._hooks = UpdateHooks(monitor, optimizers, self._attempt, counts=counts_updates)

    def step(self, scalars: Mapping[str, Any] | None = None, /, **named: Any) -> None:
        """A step is done: count it, record its scalars, and measure if it is due.

        Args:
            scalars: numbers by name, for names that are no identifiers ("loss/train"). NaN and Inf are recorded.
            named: more of them.
        """
        self.step_to(self.last_step + 1, {**(scalars or {}), **named})

    def step_to(self, step: int, scalars: Mapping[str, Any] | None = None) -> None:
        """As `step`, for loops that count by themselves; a number that is not after the last one is not recorded."""
        if step > self.last_step:
            self.last_step = step
            self._attempt(self._after_step, step, scalars or {})
            if self._hooks is not None:
                self._attempt(self._hooks.expect)

    def log(self, scalars: Mapping[str, Any] | None = None, /, **named: Any) -> None:
        """Record further scalars of the last step, such as a validation loss."""
        if self.monitor is not None:
            self._attempt(self.monitor.log, self.last_step, {**(scalars or {}), **named})

    def saved(self) -> None:
        """Call after the training's state was saved: a later `watch` can go on with `start_step=last_step`."""
        if self.monitor is not None:
            self._attempt(self.monitor.before_checkpoint, self.last_step)
            self._attempt(self.monitor.on_checkpoint, self.last_step)

    @property
    def updated(self) -> set[str]:
        """The networks that an optimizer has changed since the last step, if they are counted."""
        return set() if self._hooks is None else set(self._hooks.updated)

    def close(self, *, failed: bool = False) -> None:
        """End the record and remove the hooks; after a failure nothing more is drawn. Safe to call twice."""
        if self._hooks is not None:
            self._attempt(self._hooks.close)
        if self.monitor is not None:
            self._attempt(self.monitor.on_end, "failed" if failed else "finished")
        self._hooks = self.monitor = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)

    def _after_step(self, step: int, scalars: Mapping[str, Any]) -> None:
        if self.monitor is not None:
            for network in self.monitor.networks:
                self.monitor.skip(network)  # those without an update have no gradients
            self.monitor.after_step(step, scalars)

    def _attempt(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function; what it raises becomes an event, and if that fails too, a warning."""
        try:
            function(*arguments)
        except Exception as error:
            self._tell(getattr(function, "__name__", "spectra"), error)

    def _tell(self, what: str, error: Exception) -> None:
        words = error_in_words(error)
        try:
            assert self.monitor is not None
            self.monitor.report(self.last_step, Failure(None, what.strip("_"), words))
        except Exception:
            warn(f"spectra failed in {what}, and training goes on: {words}")


def _is_first_process() -> bool:
    import torch.distributed as dist

    return not (dist.is_available() and dist.is_initialized() and dist.get_rank())


def _optimizers(given: Any) -> list[Any]:
    """The torch optimizers in what was given: one, several, or wrappers that hold one as `optimizer`."""
    from torch.optim import Optimizer

    found = []
    several = given.values() if isinstance(given, Mapping) else given
    for one in [given] if hasattr(given, "param_groups") or not isinstance(several, Iterable) else several:
        inner = one
        while isinstance(getattr(inner, "optimizer", None), Optimizer):  # as accelerate's, whose hooks are not called
            inner = inner.optimizer
        if not isinstance(inner, Optimizer):
            raise TypeError(
                f"optimizer= takes torch optimizers; got {type(one).__name__}. Omit it to follow every torch "
                "optimizer, or call before_update and after_backward of a spectra.Monitor around an update of your own"
            )
        found.append(inner)
    if not found:
        raise ValueError("optimizer= is empty: give the optimizers of the networks, or omit it")
    return found


def _check_held(monitor: Monitor, optimizers: list[Any] | None) -> None:
    """Raise `ValueError` for an optimizer that holds no parameter of the networks."""
    known = {id(p) for network in monitor.networks.values() for p in network.parameters()}
    for one in optimizers or []:
        held = {id(p) for group in one.param_groups for p in group["params"]}
        if not held & known:
            raise ValueError(
                f"an optimizer ({type(one).__name__}) holds no parameter of {', '.join(monitor.networks)}: give the "
                "networks that it trains, and make it after they are moved or changed"
            )
