"""A registry: names that a configuration may use, and what each stands for."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Generic, TypeVar, cast

T = TypeVar("T")


def imported(entry: T | str) -> T:
    """What "package.module:name" names; anything else is itself."""
    if not isinstance(entry, str):
        return entry
    module, _, name = entry.partition(":")
    return cast("T", getattr(import_module(module), name))


class Registry(MutableMapping[str, T], Generic[T]):
    """Name -> object, or "package.module:name", which is imported when it is first asked for.

    So `--help` can list the names without importing torch.
    """

    def __init__(self, entries: dict[str, T | str]) -> None:
        self.entries = dict(entries)

    def __getitem__(self, name: str) -> T:
        return imported(self.entries[name])

    def __setitem__(self, name: str, entry: T | str) -> None:
        self.entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
