"""What a dataset of a Python library gives for an item, as pixels and a label: torchvision's, Hugging Face's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from biggan.data.decode import BrokenImage, decode, over_white, upright_pixels
from biggan.errors import UserError

IMAGE_KEYS = ("image", "img", "pixels", "pixel_values")
LABEL_KEYS = ("label", "labels", "fine_label", "target", "class")
SLACK = 1e-4
"""By how much of their range floats may lie outside of it: they were computed."""


def image_and_label(item: Any, image: Any, label: Any) -> tuple[Any, Any]:
    """The image and the label in an item: a pair, a mapping, or an image alone (label None).

    `image` and `label` are keys or places, where they are not the usual ones. Raises `UserError` where one is missing.
    """
    if isinstance(item, Mapping):
        image = next((key for key in IMAGE_KEYS if key in item), image) if image is None else image
        label = next((key for key in LABEL_KEYS if key in item), None) if label is None else label
        given: Any = list(item)
    elif isinstance(item, tuple | list):
        image, label = 0 if image is None else image, (1 if len(item) > 1 else None) if label is None else label
        given = f"{len(item)} values"
    else:
        return item, None
    try:
        return item[image], None if label is None else item[label]
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"has {given}, and no image '{image}' or no label '{label}'. Say where they are: image=NAME, label=NAME."
        ) from error


def as_class(label: Any) -> int | str:
    """A label as a class number from 0, or as text. Raises `UserError` for anything else."""
    value = label.item() if hasattr(label, "item") and getattr(label, "ndim", 0) in (0, 1) and _is_one(label) else label
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int) or (isinstance(value, float) and value.is_integer()):
        if value < 0:
            raise UserError(f"has the label {value}, expected a class number from 0, or text.")
        return int(value)
    raise UserError(
        f"has a label of type {type(label).__name__} ({label!s:.60}), expected a class number from 0, or text. Say "
        f"which part of an item is the label: label=NAME."
    )


def _is_one(label: Any) -> bool:
    return int(np.prod(getattr(label, "shape", ()))) == 1


def as_rgb(image: Any, value_range: tuple[float, float] | None) -> np.ndarray:
    """An image as uint8 (H, W, 3): Pillow's, an array (H, W, C) or (H, W), a torch tensor (C, H, W), or a file's bytes.

    Floats are read as 0 (black) to 1 (white), or as `value_range` says. Raises `UserError` for values outside of it.
    """
    if isinstance(image, Mapping) and image.get("bytes") is not None:  # Hugging Face's, not decoded
        image = image["bytes"]
    try:
        if isinstance(image, bytes):
            return decode(image)
        if isinstance(image, Image.Image):
            return upright_pixels(image)
    except (BrokenImage, OSError) as error:
        raise UserError(f"is broken: {error}.") from error
    is_tensor = hasattr(image, "detach")
    array = image.detach().cpu().numpy() if is_tensor else np.asarray(image)
    return _three_channels(_channels_last(_as_bytes(array, value_range), first=is_tensor))


def _as_bytes(array: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise UserError(
            f"has pixels of type {array.dtype}, expected uint8 from 0 to 255, or floats from 0 to 1. Convert them."
        )
    low, high = (0.0, 1.0) if value_range is None else value_range
    values = array.astype(np.float64)
    slack = SLACK * (high - low)
    if not (values.size and low - slack <= values.min() and values.max() <= high + slack):  # NaN is outside
        found = f"{values.min():.4g} to {values.max():.4g}" if values.size else "nothing"
        raise UserError(
            f"has values from {found}, and floats are read as {low:g} (black) to {high:g} (white). If another range is "
            f"meant, give it, such as value_range=(-1, 1); else undo what normalized them."
        )
    return np.rint((values.clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)


def _channels_last(array: np.ndarray, *, first: bool) -> np.ndarray:
    """(H, W, C) of (H, W), (H, W, C) or (C, H, W); `first`: which of the two is taken where both may be meant."""
    if array.ndim == 2:
        return array[..., None]
    fits = [array.ndim == 3 and array.shape[place] in (1, 3, 4) for place in (0, -1)]
    if not any(fits):
        raise UserError(f"is of shape {array.shape}, expected height, width and 1, 3 or 4 channels.")
    return array.transpose(1, 2, 0) if fits[0] and (first or not fits[1]) else array


def _three_channels(array: np.ndarray) -> np.ndarray:
    if 0 in array.shape:
        raise UserError(f"is of shape {array.shape}, which is empty.")
    if array.shape[2] == 4:
        return over_white(array)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
