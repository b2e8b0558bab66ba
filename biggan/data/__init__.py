"""Images and labels: sources, splits, batches, packing. `from_dataset` packs a dataset of any Python library."""

from __future__ import annotations

from spectra.public import lazy_names

_HOMES = {"biggan.data.prepare.dataset": ["from_dataset"]}

__getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
