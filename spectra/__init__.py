"""Singular values of any PyTorch network's weights, and what they say about its training.

The public names below are imported on first use, so that `import spectra` and `spectra --help` do not wait for torch.
"""

from __future__ import annotations

from spectra.public import lazy_names

_HOMES = {
    "spectra.linalg.result": ["TopSingularValues"],
    "spectra.linalg.topk": ["top_singular_values", "top_singular_values_batch"],
    "spectra.networks.matrices": ["NormalizedLayer", "WeightMatrix", "as_matrix", "weight_matrices"],
    "spectra.linalg.operators": ["ImageOperator", "LinearOperator", "convolution_operator"],
    "spectra.networks.checkpoint_files": ["StoredWeight", "WeightFile", "read_weights"],
    "spectra.networks.files.stored": ["WeightFileError"],
    "spectra.monitor.monitor": ["Monitor"],
    "spectra.monitor.probes": ["PROBES", "Probe"],
    "spectra.monitor.snapshot": ["Snapshot"],
    "spectra.monitor.watch": ["Watch", "watch"],
    "spectra.monitor.schedule": ["Bursts", "Every", "Logarithmic"],
    "spectra.draw.figures": ["FIGURES", "draw_figures"],
    "spectra.draw.charts": ["Chart"],
    "spectra.record.frames": ["gradient_variance_in_time", "load"],
    "spectra.record.events": ["read_events"],
    "spectra.record.subjects": ["rows_named"],
    "spectra.detect.finding": ["Finding"],
    "spectra.detect.registry": ["DETECTORS", "Detector"],
    "spectra.detect.online": ["detect_run"],
    "spectra.networks.scan": ["Spectrum", "scan"],
    "spectra.networks.convolutions": ["Convolution"],
}
_MODULES = {
    "detect": "spectra.detect",
    "lightning": "spectra.monitor.integrations.lightning",
    "transformers": "spectra.monitor.integrations.transformers",
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES, _MODULES)
