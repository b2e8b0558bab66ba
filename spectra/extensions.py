"""What other packages add to spectra: detectors, probes, figures, panels. Found by the standard entry points.

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
    """Let every installed extension register what it adds; one that fails is left out with a warning."""
    for entry in entry_points(group=GROUP):
        if entry in _called:
            continue
        _called.add(entry)  # before the call, which may use a registry itself
        try:
            entry.load()()
        except Exception as error:
            warnings.warn(
                f"spectra goes on without the extension {entry.name!r} ({entry.value}), which failed: "
                f"{type(error).__name__}: {error}. Repair or uninstall the package that brings it",
                RuntimeWarning,
                stacklevel=2,
            )
