"""Image ids: names of images that do not depend on where the data is stored.

They decide which images are for validation, and let a run recognize its data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from biggan.data.labels import Labels
from biggan.errors import UserError
from biggan.rng import uniform

IMAGE_ID = np.dtype([("key", "<u8"), ("draw", "<f8")])
"""`key`: a digest of the image's name in its source. `draw`: the image is held out if the share is above this
number."""

HOLD_OUT = 3  # the number of the draw; those of augmentation are in `images`


def keys_of(names: Iterable[str]) -> np.ndarray:
    """uint64 (N,): 64 bits of each name's digest."""
    digests = (hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(digests), dtype="<u8")


def numbered(key: np.ndarray | np.uint64, numbers: np.ndarray) -> np.ndarray:
    """uint64 (N,): keys of the numbered rows of a file with the key `key`, or with one key per row."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return key ^ (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)


def image_ids(keys: np.ndarray, labels: Labels) -> np.ndarray:
    """`IMAGE_ID` (N,) of all images of a source, before any is removed.

    Each draw is a number in [0, 1) that depends only on the image's key, so removing or adding images moves no other
    image between the splits. Exception: in each class (by first label) of two images or more, the smallest and the
    largest draw become 0 and 1, so that both splits have images of it. A class of one image is for training.
    """
    found = np.empty(len(keys), dtype=IMAGE_ID)
    found["key"], found["draw"] = keys, uniform(keys, HOLD_OUT)
    order = np.lexsort((keys, found["draw"], labels.first))
    starts = np.flatnonzero(np.diff(labels.first[order], prepend=-1))
    ends = np.append(starts[1:], len(order)) - 1
    found["draw"][order[starts]] = 0
    found["draw"][order[ends]] = 1  # the same image in a class of one
    return found


def hold_out(ids: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices for training and for validation, ascending: about `share` of each class, the same for every run.

    Raises `UserError` if no image can be held out.
    """
    held = ids["draw"] < share
    if not held.any():
        raise UserError(
            f"no image can be held out for validation: each of the {len(ids)} images is the only one of its class. "
            f"Expected a class with two images, or data with its own validation split. To train on all of them: "
            f"--data.no_validation true."
        )
    return np.flatnonzero(~held), np.flatnonzero(held)
