"""Wrappers around networks and layers that a user did not name: their weights are called as without them.

`torch.compile`, DistributedDataParallel and the like keep what they wrap as a child (`_orig_mod`, `module`), so that
the same weight would have another name in every way of training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_CHILD_OF = {
    "OptimizedModule": "_orig_mod",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "AveragedModel": "module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}
"""torch's wrappers, and the child that each wraps. By name, so that none of them must be imported."""


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside all wrappers; itself where there is none."""
    while (child := _wrapped_child(network)) is not None:
        network = network._modules[child]  # type: ignore[assignment]
    return network


def plain_name(network: nn.Module, name: str) -> str:
    """A dotted name of a layer or parameter of `network` without the wrappers on the way to it."""
    module: nn.Module | None = network
    kept = []
    for part in name.split("."):
        if module is None or part != _wrapped_child(module):
            kept.append(part)
        module = None if module is None else module._modules.get(part)
    return ".".join(kept)


def _wrapped_child(module: nn.Module) -> str | None:
    """The name of the child that a wrapper wraps; None for any other module, also a user's own with such a child."""
    for kind in type(module).__mro__:
        child = _CHILD_OF.get(kind.__name__)
        if child is not None and kind.__module__.startswith("torch.") and child in module._modules:
            return child
    return None
