"""Whether the classifier whose features are used knows the data's classes; if not, scores in them say little."""

from __future__ import annotations

import math

import numpy as np
import torch

from biggan import rng
from biggan.data.images import Source
from biggan.evaluation.features.registry import FeatureNetwork, embed_images

GOOD = 0.8
"""Share of validation images that a classifier must get right, so that nothing is said."""
OPTIONS = "--eval.features of biggan-train, --features of biggan-eval"
MOST_CHECKED = 2_000
"""Validation images that are looked at, drawn once for all."""


def weak_features(network: FeatureNetwork, source: Source, device: str | torch.device = "cpu") -> str | None:
    """A warning where the network is wrong on more than a fifth of the validation images, or not clearly better than
    naming their most frequent class each time. None where it is good, where there are no validation images, and for
    networks of other classes."""
    if not network.own_classes:
        return None
    if len(source.classes) == 1:
        return (
            "warning: the data has 1 class, from which a classifier learns nothing, so FIDs in its features say "
            f"little. Use other features ({OPTIONS})."
        )
    count = min(len(source.val), MOST_CHECKED)
    if not count:
        return None
    places = np.sort(rng.generator(0, "features/checked").permutation(len(source.val))[:count])
    images = source.val.subset(places)
    right = 0
    for part in embed_images(network, images, device):
        if part.logits is None:
            return None
        right += int((part.logits.argmax(dim=1) == part.labels).sum())
    chance = float(np.bincount(images.labels).max()) / count
    if right / count >= GOOD and _least_share(right, count) > chance:
        return None
    images_checked = f"{count:,} validation image{'' if count == 1 else 's'}"
    return (
        f"warning: the classifier whose features the scores use is right on {right / count:.0%} of {images_checked} "
        f"(naming one class always: {chance:.0%}), so FIDs in these features say little. More images help, or other "
        f"features ({OPTIONS})."
    )


def _least_share(right: int, count: int) -> float:
    """The lower end of Wilson's 95 % interval of a share."""
    z, share = 1.96, right / count
    middle = share + z**2 / (2 * count)
    return (middle - z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))) / (1 + z**2 / count)
