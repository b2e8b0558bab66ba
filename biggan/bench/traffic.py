"""Counts the bytes that a step's operators read and write, which the roofline needs beside the operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of every operator's tensors, arguments and results, views and bare allocations excepted."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.__name__:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def count_traffic(work: Callable[[], object]) -> int:
    """Bytes that `work`'s operators read and write if no cache keeps anything between two of them."""
    with _Traffic() as traffic:
        work()
    return traffic.bytes
