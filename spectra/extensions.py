"""How other packages add detectors, probes, figures and panels to spectra, through Python's entry points.

A package names a function without arguments in the group `spectra.extensions` of its pyproject.toml:

    [project.entry-points."spectra.extensions"]
    mine = "my_package.for_spectra:register"

The function adds its entries to the registries (`spectra.PROBES`, `spectra.DETECTORS`, `spectra.FIGURES`, ...). It is
called once, when a registry is first used.
"""

from __future__ import annotations

import functools
import sys
import warnings
from importlib.metadata import EntryPoint, entry_points

GROUP = "spectra.extensions"

_called: set[EntryPoint] = set()


@functools.lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The extensions of the packages on `sys.path`: reading what every package names takes about 20 ms."""
    return tuple(entry_points(group=GROUP))


def load_extensions() -> None:
    """Call every installed extension's function; one that fails is skipped with a warning."""
    for entry in _installed(tuple(sys.path)):
        if entry in _called:
            continue
        _called.add(entry)  # before the call, which may use a registry itself
        try:
            entry.load()()
        except Exception as error:
            warnings.warn(
                f"spectra skips the extension {entry.name!r} ({entry.value}), which failed: "
                f"{type(error).__name__}: {error}. Repair or uninstall its package",
                RuntimeWarning,
                stacklevel=2,
            )
