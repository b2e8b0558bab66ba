"""Images and labels as numpy's arrays: one .npz, or images.npy with labels.npy beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from biggan.data.decode import square
from biggan.data.ids import image_ids, keys_of
from biggan.data.images import Images
from biggan.data.labels import Labels
from biggan.data.notes import note_of_data
from biggan.data.sources.folder import ONLY_CLASS
from biggan.data.sources.preparable import ARCHIVE_FAULTS, PreparableSource, file_of_arrays
from biggan.errors import UserError

TRAIN_IMAGES = ("images", "train_images", "x_train", "x", "data", "arr_0")
TRAIN_LABELS = ("labels", "train_labels", "y_train", "y", "targets", "arr_1")
VAL_IMAGES = ("val_images", "x_val", "test_images", "x_test")
VAL_LABELS = ("val_labels", "y_val", "test_labels", "y_test")
MOST_UNNAMED = 1_000_000


class ImagesOfAnySize(Images):
    """Pixels (N, H, W, 3), as squares of a resolution."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, resolution: int, identity: bytes) -> None:
        all_labels = Labels(labels)
        super().__init__(
            np.arange(len(labels)), all_labels, image_ids(keys_of(map(str, range(len(labels)))), all_labels)
        )
        self.pixels_of, self.resolution, self._identity = pixels, resolution, identity
        self.stored_size = pixels.shape[1:3]

    def load(self, index: int) -> np.ndarray:
        """One image, cropped and resampled."""
        return square(np.asarray(self.pixels_of[index]), self.resolution)

    def _files_identity(self) -> bytes:
        return self._identity


def as_pixels(array: np.ndarray, where: str) -> np.ndarray:
    """uint8 (N, H, W, 3) of an array of images: grey ones in three channels, channels last.

    Raises `UserError` for anything else, with what to do.
    """
    if array.dtype != np.uint8:
        raise UserError(
            f"{where} holds {array.dtype}, expected uint8 from 0 to 255. Convert it: (x * 255).round().astype('uint8') "
            "for values from 0 to 1."
        )
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim == 4 and array.shape[-1] not in (1, 3) and array.shape[1] in (1, 3):
        note_of_data(f"{where}: its images are {array.shape[1:]}, read as channels, height, width")
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or 0 in array.shape:
        raise UserError(f"{where} has the shape {array.shape}, expected (N, H, W, 3), (N, H, W) or (N, 3, H, W).")
    return np.broadcast_to(array, (*array.shape[:3], 3))


def as_labels(array: np.ndarray | None, count: int, where: str) -> np.ndarray:
    """int64 (N,) of an array of labels; all 0, with a note, where there is none.

    Raises `UserError` for labels that are no whole numbers from 0, or another number of them.
    """
    if array is None:
        note_of_data(f"{where} has no labels: its {count} images are one class ({ONLY_CLASS})")
        return np.zeros(count, dtype=np.int64)
    flat = np.asarray(array)
    if flat.ndim == 2 and flat.shape[1] == 1:
        flat = flat[:, 0]
    if flat.ndim == 2 and len(flat) == count and set(np.unique(flat)) <= {0, 1} and bool((flat.sum(axis=1) == 1).all()):
        flat = flat.argmax(axis=1)
    whole = flat.dtype.kind in "biuf" and flat.ndim == 1 and bool((flat == np.floor(flat.astype(np.float64))).all())
    if not whole or len(flat) != count:
        raise UserError(
            f"{where} has labels of shape {np.shape(array)} and type {flat.dtype}, expected {count} whole numbers from "
            "0."
        )
    if count and flat.min() < 0:
        raise UserError(f"{where} has the label {flat.min()}, expected {count} whole numbers from 0.")
    return flat.astype(np.int64)


def named_classes(names: Any, *labels: np.ndarray) -> tuple[str, ...]:
    """The classes' names by number; their numbers where there are no names."""
    highest = max((int(one.max()) for one in labels if len(one)), default=0)
    if names is None and highest >= MOST_UNNAMED:
        raise UserError(
            f"the labels go up to {highest:,}, and {MOST_UNNAMED:,} classes are the most without names. Number the "
            "classes from 0."
        )
    classes = tuple(map(str, range(highest + 1))) if names is None else tuple(map(str, np.asarray(names).tolist()))
    if names is None and highest == 0:
        classes = (ONLY_CLASS,)
    if highest >= len(classes):
        raise UserError(f"the labels go up to {highest}, and there are {len(classes)} class names.")
    return classes


def _open_arrays(path: Path, resolution: int) -> tuple[Images, Images | None, tuple[str, ...]]:
    path = file_of_arrays(path)
    try:
        if path.suffix.lower() == ".npy":
            beside = path.with_name(path.name.replace("images", "labels"))
            arrays: Mapping[str, np.ndarray] = {"images": np.load(path, mmap_mode="r", allow_pickle=False)}
            if beside != path and beside.is_file():
                arrays = {**arrays, "labels": np.load(beside, allow_pickle=False)}
        else:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
    except ARCHIVE_FAULTS as error:
        raise UserError(
            f"{path} cannot be read as numpy's arrays ({error}). Save images of one size as one array of "
            f"uint8 with numpy.savez."
        ) from error
    train, labels = _split_of(arrays, TRAIN_IMAGES, TRAIN_LABELS, str(path))
    if train is None:
        raise UserError(
            f"{path} has the arrays {', '.join(arrays)}, expected images under one of {', '.join(TRAIN_IMAGES)}."
        )
    val, val_labels = _split_of(arrays, VAL_IMAGES, VAL_LABELS, f"{path} (validation)")
    used = {*TRAIN_IMAGES, *TRAIN_LABELS, *VAL_IMAGES, *VAL_LABELS, "class_names", "facts"}
    if unused := sorted(set(arrays) - used):
        note_of_data(f"{path}: its arrays {', '.join(unused)} are not used")
    classes = named_classes(arrays.get("class_names"), labels, *([] if val is None else [val_labels]))
    facts = path.stat()
    identity = f"{path.name} {facts.st_size} {facts.st_mtime_ns}".encode(errors="surrogateescape")
    split = ImagesOfAnySize(train, labels, resolution, identity)
    return split, None if val is None else ImagesOfAnySize(val, val_labels, resolution, identity + b" val"), classes


def _split_of(
    arrays: Mapping[str, np.ndarray], images: tuple[str, ...], labels: tuple[str, ...], where: str
) -> tuple[np.ndarray | None, np.ndarray]:
    """The pixels and labels of a split; None where it is not there."""
    found = next((arrays[name] for name in images if name in arrays), None)
    if found is None:
        return None, np.zeros(0, dtype=np.int64)
    pixels = as_pixels(found, where)
    return pixels, as_labels(next((arrays[name] for name in labels if name in arrays), None), len(pixels), where)


ARRAYS = PreparableSource("a file of numpy's arrays", _open_arrays)
"""`.npz` with images and labels, or `.npy` with images; or the folder of them."""
