"""Singular values of any PyTorch network's weights, and what they say about its training. Knows no GAN.

The public names below are imported on first use, so that `import spectra` and `spectra --help` do not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "spectra.topk": ["TopSingularValues", "top_singular_values", "top_singular_values_batch"],
    "spectra.matrices": ["NormalizedLayer", "WeightMatrix", "as_matrix", "weight_matrices"],
    "spectra.operators": ["ImageOperator", "LinearOperator", "convolution_operator"],
    "spectra.files": ["Checkpoint", "CheckpointError", "StoredWeight", "read_checkpoint"],
    "spectra.monitor": ["Monitor"],
    "spectra.probes": ["PROBES", "Probe", "Snapshot"],
    "spectra.schedule": ["Bursts", "Every", "Logarithmic"],
    "spectra.plots": ["FIGURES", "draw_figures"],
    "spectra.frames": ["gradient_variance_in_time", "load", "read_events"],
    "spectra.findings": ["Finding"],
    "spectra.detectors": ["detect_run"],
    "spectra.scan": ["Convolution", "Spectrum", "scan"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME_OF, "detect", "lightning"])


def __getattr__(name: str) -> Any:
    if name in ("detect", "lightning"):
        return import_module(f"spectra.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'spectra' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
