"""The UCI "Optical Recognition of Handwritten Digits" test set: 1,797 real images of 8x8, 16 grey levels.

The same images as scikit-learn's `load_digits` (E. Alpaydin, C. Kaynak, 1998; CC BY 4.0), embedded in the package.
"""

from __future__ import annotations

from importlib import resources

import cv2
import numpy as np

from biggan import rng
from biggan.data.images import ImageArray, Source

VALIDATION_SHARE = 0.22


def load_digits(resolution: int) -> Source:
    """1,402 training and 395 validation images, stratified by class, the same for every run.

    Enlarged bilinearly from 8x8 and repeated over three channels.
    """
    with resources.files("biggan.data").joinpath("digits.npz").open("rb") as file, np.load(file) as archive:
        images, labels = archive["images"], archive["labels"].astype(np.int64)
    train, val = _split(labels)
    whole = ImageArray(_enlarge(images, resolution), labels)
    return Source(
        train=whole.subset(train),
        val=whole.subset(val),
        classes=tuple(str(digit) for digit in range(10)),
    )


def _split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the two splits, the same for every run: in each class a fixed random part is for validation."""
    order = rng.generator(0, "digits/split").permutation(len(labels))
    train, val = [], []
    for c in range(10):
        members = order[labels[order] == c]
        cut = round(VALIDATION_SHARE * len(members))
        val.append(members[:cut])
        train.append(members[cut:])
    return np.concatenate(train), np.concatenate(val)


def _enlarge(images: np.ndarray, resolution: int) -> np.ndarray:
    """uint8 (N, 8, 8) in 0..16 -> uint8 (N, R, R, 3) in 0..255."""
    grey = images.astype(np.float32) * (255 / 16)
    if resolution != 8:
        size = (resolution, resolution)
        grey = np.stack([cv2.resize(image, size, interpolation=cv2.INTER_LINEAR) for image in grey])
    return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=3)
