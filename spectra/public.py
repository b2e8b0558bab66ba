"""Public names that are imported on first use: importing a package, and asking for help, do not wait for torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from spectra.version import package_version

Lazy = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]
"""A module's `__getattr__`, `__dir__` and `__all__` (PEP 562)."""


def lazy_names(package: str, homes: Mapping[str, Sequence[str]], modules: Mapping[str, str] | None = None) -> Lazy:
    """What makes `package` offer the names of `homes` (module -> names), and `modules` (name -> module) as a whole."""
    home_of = {name: home for home, names in homes.items() for name in names}
    whole = dict(modules or {})
    public = sorted([*home_of, *whole])

    def get(name: str) -> Any:
        if name == "__version__":
            return package_version()
        if name in whole:
            return import_module(whole[name])
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(home_of[name]), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *public})

    return get, names, public
