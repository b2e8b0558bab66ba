"""Singular values of any PyTorch network's weights, and what they say about its training.

The public names below are imported on first use, so that `import spectra` and `spectra --help` do not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "spectra.linalg.topk": ["TopSingularValues", "top_singular_values", "top_singular_values_batch"],
    "spectra.networks.matrices": ["NormalizedLayer", "WeightMatrix", "as_matrix", "weight_matrices"],
    "spectra.linalg.operators": ["ImageOperator", "LinearOperator", "convolution_operator"],
    "spectra.networks.checkpoint_files": ["StoredWeight", "WeightFile", "WeightFileError", "read_weights"],
    "spectra.monitor.monitor": ["Monitor"],
    "spectra.monitor.probes": ["PROBES", "Probe", "Snapshot"],
    "spectra.monitor.schedule": ["Bursts", "Every", "Logarithmic"],
    "spectra.draw.figures": ["FIGURES", "draw_figures"],
    "spectra.draw.charts": ["Chart"],
    "spectra.record.frames": ["gradient_variance_in_time", "load"],
    "spectra.record.events": ["read_events"],
    "spectra.detect.finding": ["Finding"],
    "spectra.detect.registry": ["DETECTORS", "Detector"],
    "spectra.detect.online": ["detect_run"],
    "spectra.networks.scan": ["Convolution", "Spectrum", "scan"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME_OF, "detect", "lightning"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from spectra.version import package_version

        return package_version()
    if name in ("detect", "lightning"):
        return import_module({"detect": "spectra.detect", "lightning": "spectra.monitor.integrations.lightning"}[name])
    if name not in _HOME_OF:
        raise AttributeError(f"module 'spectra' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
