"""HDF5 files as BigGAN-PyTorch's make_hdf5.py writes them: `imgs` (N, 3, R, R) uint8 and `labels` (N,)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biggan.data.decode import BrokenImage, square
from biggan.data.ids import image_ids, keys_of
from biggan.data.images import Images
from biggan.data.labels import Labels
from biggan.data.notes import notes_of_data
from biggan.data.sources.arrays import TRAIN_IMAGES, TRAIN_LABELS, as_labels, as_pixels, named_classes
from biggan.data.sources.preparable import PreparableSource, file_of_arrays
from biggan.errors import UserError

if TYPE_CHECKING:
    import h5py

IMAGE_NAMES = ("imgs", *TRAIN_IMAGES)
AT_A_TIME = 64
"""Images that are read together where the file is not in chunks."""


class StoredImages(Images):
    """Images of one dataset of an HDF5 file, which each process opens for itself. The newest chunk stays in memory,
    because a compressed one is read whole whatever is wanted of it."""

    def __init__(
        self, path: Path, name: str, block: int, size: tuple[int, ...], labels: np.ndarray, resolution: int
    ) -> None:
        """`block`: images in a chunk; `size`: their height and width."""
        all_labels = Labels(labels)
        keys = keys_of(map(str, range(len(labels))))
        super().__init__(np.arange(len(labels)), all_labels, image_ids(keys, all_labels))
        self.path, self.dataset, self.block, self.resolution = path, name, block, resolution
        self.stored_size = size
        self._open: tuple[int, Any] | None = None
        self._held: tuple[int, np.ndarray] | None = None

    def load(self, index: int) -> np.ndarray:
        """One image, cropped and resampled."""
        try:
            return self.load_raw(index)
        except BrokenImage as error:
            raise UserError(f"image {index} of {self.path} {error}. Copy the file again.") from error

    def load_raw(self, index: int) -> np.ndarray:
        """As `load`, but raises `BrokenImage` where the file is damaged there."""
        first = index - index % self.block
        if self._held is None or self._held[0] != first:
            self._held = first, self._read(first)
        return square(self._held[1][index - first], self.resolution)

    def _read(self, first: int) -> np.ndarray:
        if self._open is None or self._open[0] != os.getpid():  # a forked worker must not share its parent's file
            self._open = os.getpid(), open_hdf5(self.path)
        try:
            return as_pixels(self._open[1][self.dataset][first : first + self.block], str(self.path))
        except (OSError, RuntimeError) as error:
            raise BrokenImage(f"cannot be read: {error}") from error

    def name(self, index: int) -> str:
        """The file, and the number in it."""
        return f"image {index} of {self.path}"

    def _files_identity(self) -> bytes:
        found = self.path.stat()
        return f"{self.path.name} {self.dataset} {found.st_size} {found.st_mtime_ns}".encode(errors="surrogateescape")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": None, "_held": None}


def open_hdf5(path: Path) -> h5py.File:
    """The file, to be read. Raises `UserError` where it is damaged, and where h5py is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path} is an HDF5 file, which takes the package h5py: pip install h5py.") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path} is no whole HDF5 file ({error}). Copy it again.") from error


def _open_images(path: Path, resolution: int) -> tuple[Images, Images | None, tuple[str, ...]]:
    file_path = file_of_arrays(path)
    with open_hdf5(file_path) as file:
        found = {name: one for name, one in file.items() if hasattr(one, "shape")}
        name = next((name for name in IMAGE_NAMES if name in found), None)
        if name is None:
            listed = ", ".join(f"{name} {one.shape}" for name, one in found.items()) or ", ".join(file) or "nothing"
            raise UserError(
                f"{file_path} holds {listed}. Expected `imgs` (N, 3, R, R) of uint8 and `labels` (N,), as "
                f"BigGAN-PyTorch's make_hdf5.py writes them."
            )
        stored = found[name]
        if stored.ndim not in (3, 4) or 0 in stored.shape:
            raise UserError(f"{file_path} has `{name}` of shape {stored.shape}, expected (N, 3, R, R).")
        with notes_of_data():  # (3, R, R) is how these files are
            size = as_pixels(_first(stored, file_path), f"{file_path}: {name}").shape[1:3]
        given = next((found[one] for one in TRAIN_LABELS if one in found), None)
        labels = as_labels(None if given is None else _first(given, file_path, len(given)), len(stored), str(file_path))
        block = stored.chunks[0] if stored.chunks else AT_A_TIME
    images = StoredImages(file_path, name, block, size, labels, resolution)
    return images, None, named_classes(None, labels)


def _first(stored: h5py.Dataset, path: Path, count: int = 1) -> np.ndarray:
    try:
        return np.asarray(stored[:count])
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} is damaged in {stored.name} ({error}). Copy it again.") from error


HDF5 = PreparableSource("an HDF5 file", _open_images)
"""A file, or a folder with one such file alone."""
