"""The tensors in nested dicts and lists, by dotted name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from spectra.networks.files.pickled import Built
from spectra.networks.files.stored import StoredTensor, without_wrappers

MOST_LEVELS = 32
"""Containers within containers are followed so far."""

LONGEST_KEY = 500
"""Longer keys are shortened in names."""

_NAMESPACES = ("argparse.Namespace", "types.SimpleNamespace")
_OF_PAIRS = ("collections.OrderedDict", "builtins.dict")


def tensors_in(content: Any, tensor_of: Callable[[Any], StoredTensor | None]) -> list[StoredTensor]:
    """All tensors in what a pickle holds, in its order.

    A container that stands in several places is entered once, at the first, so that a small file cannot hold
    an endless number of names.

    Args:
        content: dicts, lists, tuples and `Built`.
        tensor_of: what a value is as a tensor, without a name; None for anything else.
    """
    found: list[StoredTensor] = []
    seen: set[int] = set()
    waiting: list[_Place] = [(content, tensor_of(content), (), False)]
    while waiting:
        value, tensor, path, is_optimizer = waiting.pop()
        if tensor is not None:
            found.append(replace(tensor, name=".".join(path) or "tensor", is_optimizer=is_optimizer))
            continue
        inside = _inside(value)
        if inside is None or id(value) in seen or len(path) >= MOST_LEVELS:
            continue
        seen.add(id(value))
        is_optimizer = is_optimizer or (isinstance(value, dict) and {"state", "param_groups"} <= value.keys())
        items = [(_word(key), item, tensor_of(item)) for key, item in inside]
        names = _of_tensors([key for key, _, tensor in items if tensor is not None])
        waiting += [(item, tensor, (*path, names.get(key, key)), is_optimizer) for key, item, tensor in reversed(items)]
    return found


_Place = tuple[Any, StoredTensor | None, tuple[str, ...], bool]
"""A value, what it is as a tensor, its path, and whether it is an optimizer's."""


def _of_tensors(keys: list[str]) -> dict[str, str]:
    """A state dict's keys without what wrappers put before them."""
    return dict(zip(keys, without_wrappers(keys), strict=True))


def _inside(value: Any) -> Iterable[tuple[Any, Any]] | None:
    """The entries of a container; None of what is none."""
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, list | tuple):
        return enumerate(value)
    if isinstance(value, Built) and value.what in _NAMESPACES and isinstance(value.state, dict):
        return value.state.items()
    if isinstance(value, Built) and value.what in _OF_PAIRS and len(value.args) == 1:
        pairs = value.args[0]
        if isinstance(pairs, list | tuple) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            return [*((key, item) for key, item in pairs), *value.entries.items()]
    return None


def _word(key: Any) -> str:
    text = str(key) if isinstance(key, str | int | float | bool | None) else type(key).__name__
    return text if len(text) <= LONGEST_KEY else f"{text[:LONGEST_KEY]}..."
