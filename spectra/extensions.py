"""How other packages add detectors, probes, figures and panels to spectra, through Python's entry points.

A package names a function without arguments in the group `spectra.extensions` of its pyproject.toml:

    [project.entry-points."spectra.extensions"]
    mine = "my_package.for_spectra:register"

The function adds its entries to the registries (`spectra.PROBES`, `spectra.DETECTORS`, `spectra.FIGURES`, ...). It is
called once, when a registry is first used.
"""

from __future__ import annotations

import warnings
from importlib.metadata import EntryPoint, entry_points

GROUP = "spectra.extensions"

_called: set[EntryPoint] = set()


def load_extensions() -> None:
    """Call every installed extension's function; one that fails is skipped with a warning."""
    for entry in entry_points(group=GROUP):
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
