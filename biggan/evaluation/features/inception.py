"""The Inception features of the published FID and IS, from a weights file on this machine; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from biggan.errors import UserError
from biggan.evaluation.features import cache

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
WHERE = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS}"


class Inception(nn.Module):
    """torch-fidelity's port of the Inception of 2015: 2,048 pooled features and the 1,008 logits without bias."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, R, R) in [-1, 1] -> features (N, 2048) and logits (N, 1008)."""
        features, logits = self.extractor(x.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8))
        return features, logits


def load_inception(weights: str | None) -> Inception:
    """The network with the weights at `weights`, or at their place in the cache folder.

    Raises `UserError` where the file is missing or not torch-fidelity's, and where torch-fidelity (the extra
    `inception`) cannot be imported.
    """
    path = Path(weights) if weights is not None else cache.cache_folder() / WEIGHTS
    if not path.is_file():
        raise UserError(
            f"the inception features need a weights file, but {path} does not exist. Download {WHERE} "
            "(torch-fidelity's, "
            f"91 MB) to that path, or give another path with --eval.weights (biggan-eval: --weights)."
        )
    if weights is None:
        cache.check_owner(path, path.stat())
    extractor = _extractor_class()
    try:
        with torch.random.fork_rng(devices=[]):  # its layers draw weights of their own
            network = extractor("inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path))
    except Exception as error:  # whatever torch and pickle make of a file of another kind
        raise UserError(
            f"{path} does not hold torch-fidelity's Inception weights ({type(error).__name__}: {str(error)[:200]}). "
            f"Download {WHERE}."
        ) from error
    return Inception(network.requires_grad_(False)).eval()


def _extractor_class() -> Any:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UserError(
            f"the inception features need the package torch-fidelity, whose import (with torchvision) failed: "
            f"{error}. Install the extra (pip install -e '.[inception]') with a torchvision that fits torch "
            f"{torch.__version__}, or use the features classifier."
        ) from error
    return FeatureExtractorInceptionV3
