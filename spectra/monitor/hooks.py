"""Finds a network's updates by itself, in any loop, through the hooks of torch's optimizers.

The weights are copied in front of the first optimizer step, and the gradients where backward ends: after accumulation,
after DistributedDataParallel has averaged them, and before clipping. Gradients that a `GradScaler` scaled are divided
by its scale. Copies are made only for steps that are measured, and nothing that training reads is touched.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from spectra.monitor.watched import copies

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spectra.monitor.monitor import Monitor

FRAMES = 24  # how far up the callers a GradScaler is looked for: wrappers of `step` lie between


class UpdateHooks:
    """Tells a monitor of every update of its networks, until `close`.

    Args:
        monitor: whom to tell.
        optimizers: those to follow; None: all torch optimizers.
        attempt: calls a function, and raises nothing.

    Attributes:
        updated: the networks that had an update since `forget` was called, for steps that are measured, or where
            `counts` says so.
    """

    def __init__(
        self, monitor: Monitor, optimizers: Iterable[Any] | None, attempt: Callable[..., None], *, counts: bool = False
    ) -> None:
        from torch.optim import optimizer

        self._monitor, self._attempt, self._counts = monitor, attempt, counts
        self.updated: set[str] = set()
        self._tensor_hooks: dict[int, tuple[nn.Parameter, Any]] = {}
        self._fired: dict[int, nn.Parameter] = {}
        self._waits = False
        self._complete: dict[str, tuple[Tensor, Callable[[Tensor], bool]]] = {}  # a gradient's copy; is it still this?
        before, after = _weakly(self, "before_step"), _weakly(self, "after_step")
        if optimizers is None:
            self._handles = [
                optimizer.register_optimizer_step_pre_hook(before),
                optimizer.register_optimizer_step_post_hook(after),
            ]
        else:
            self._handles = [
                handle
                for one in optimizers
                for handle in (one.register_step_pre_hook(before), one.register_step_post_hook(after))
            ]
        self.expect()

    def expect(self) -> None:
        """A step begins: notice its backward passes if it will be measured."""
        self.updated = set()
        self._complete, self._fired, self._waits = {}, {}, False
        wanted: dict[int, nn.Parameter] = {}
        if self._monitor.may_be_due():
            wanted = {id(p): p for p in self._monitor.watched.parameters.values()}
        for gone in self._tensor_hooks.keys() - wanted.keys():
            self._tensor_hooks.pop(gone)[1].remove()
        noticed = _weakly(self, "gradient_added")
        for new in wanted.keys() - self._tensor_hooks.keys():
            self._tensor_hooks[new] = (wanted[new], wanted[new].register_post_accumulate_grad_hook(noticed))

    def close(self) -> None:
        """Remove all hooks."""
        for handle in [*self._handles, *(handle for _, handle in self._tensor_hooks.values())]:
            handle.remove()
        self._handles, self._tensor_hooks = [], {}

    def gradient_added(self, parameter: nn.Parameter) -> None:
        """Backward has added to a parameter's gradient: look at it when the whole pass is done."""
        self._fired[id(parameter)] = parameter
        if not self._waits:
            self._waits = True
            self._attempt(_at_end_of_backward, lambda: self._attempt(self._once_more))

    def _once_more(self) -> None:
        # What other hooks asked for in this pass (averaging over processes) is done before what is asked for now.
        _at_end_of_backward(lambda: self._attempt(self._backward_done))

    def _backward_done(self) -> None:
        self._waits = False
        fired, self._fired = self._fired, {}
        there = {name: p for name, p in self._monitor.watched.parameters.items() if id(p) in fired}
        gradients = {name: p.grad for name, p in there.items() if p.grad is not None}
        made = copies(gradients)
        self._complete |= {name: (made[name], _is_still(gradient)) for name, gradient in gradients.items()}

    def before_step(self, optimizer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """An optimizer is about to change its parameters; with a closure, gradients come within its step."""
        self._attempt(self._before_step, optimizer, _has_closure(args, kwargs))

    def after_step(self, optimizer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """An optimizer has changed its parameters."""
        if _has_closure(args, kwargs):
            self._attempt(self._after_closure, optimizer)

    def _before_step(self, optimizer: Any, has_closure: bool) -> None:
        due = self._monitor.may_be_due()
        if not (due or self._counts):
            return
        held = self._held(optimizer)
        self.updated |= held.keys()
        if due:
            for network in held:
                self._monitor.before_update(network)
            if not has_closure:
                self._take(optimizer, held)

    def _after_closure(self, optimizer: Any) -> None:
        if self._monitor.may_be_due():
            self._take(optimizer, self._held(optimizer))

    def _held(self, optimizer: Any) -> dict[str, dict[str, nn.Parameter]]:
        """The parameters that an optimizer holds of each network; those without any are not there."""
        self._monitor.watched.read()
        mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
        networks = self._monitor.watched.by_network.items()
        held = {network: {name: p for name, p in whole.items() if id(p) in mine} for network, whole in networks}
        return {network: parameters for network, parameters in held.items() if parameters}

    def _take(self, optimizer: Any, held: Mapping[str, Mapping[str, nn.Parameter]]) -> None:
        """Give the monitor the gradients of an update: those of its last backward, or as they lie there now.

        A fused optimizer is called also for a step that a `GradScaler` skips, which has none.
        """
        if (found_inf := getattr(optimizer, "found_inf", None)) is not None and float(found_inf):
            return
        scale = _scale_of(optimizer)
        for network, parameters in held.items():
            with_gradient = {name: p.grad for name, p in parameters.items() if p.grad is not None}
            found: dict[str, Tensor] = {}
            for name, gradient in with_gradient.items():
                copy, is_still = self._complete.pop(name, (None, None))
                if copy is not None and is_still is not None and is_still(gradient):
                    found[name] = copy
            _divide(list(found.values()), scale)
            now = copies({name: gradient for name, gradient in with_gradient.items() if name not in found})
            _divide(list(now.values()), getattr(optimizer, "grad_scale", None))
            self._monitor.take_gradients(network, found | now)


def _at_end_of_backward(function: Callable[[], None]) -> None:
    import torch

    torch.autograd.Variable._execution_engine.queue_callback(function)  # as DistributedDataParallel does


def _weakly(hooks: UpdateHooks, method: str) -> Callable[..., None]:
    """A method for torch to keep, which does not keep the monitor and its networks."""
    held = weakref.ref(hooks)

    def call(*arguments: Any) -> None:
        alive = held()
        if alive is not None:
            getattr(alive, method)(*arguments)

    return call


def _is_still(gradient: Tensor) -> Callable[[Tensor], bool]:
    """Whether another look finds the same tensor in the same place. A freed one's place may be given to the next, and
    `.data` may be set."""
    alive, address = weakref.ref(gradient), _address(gradient)
    return lambda now: alive() is now and address == _address(now)


def _address(tensor: Tensor) -> int:
    return 0 if tensor.is_sparse else tensor.data_ptr()


def _has_closure(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    return any(map(callable, args)) or callable(kwargs.get("closure"))


def _scale_of(optimizer: Any) -> float | None:
    """By how much the `GradScaler` that calls this optimizer's step has scaled the loss; None where none does."""
    import torch

    frame = sys._getframe(1)
    for _ in range(FRAMES):
        if (caller := frame.f_back) is None:
            return None
        frame = caller
        scaler = frame.f_locals.get("self") if frame.f_code.co_name in ("step", "_maybe_opt_step") else None
        if isinstance(scaler, torch.amp.GradScaler):
            return float(scaler.get_scale())
    return None


def _divide(tensors: list[Tensor], scale: Any) -> None:
    import torch

    if tensors and scale is not None and float(scale) != 1:
        torch._foreach_div_(tensors, float(scale))
