"""Images in encoded files, which are decoded, cropped and resampled each time they are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from biggan.data.broken import SkippedImage, Substitutes, broken
from biggan.data.decode import BrokenImage, decode, square
from biggan.data.ids import image_ids
from biggan.data.images import Images
from biggan.data.labels import Labels


class Pictures(Protocol):
    """Encoded images by number."""

    def __len__(self) -> int:
        """How many."""

    def read(self, index: int) -> bytes:
        """The bytes of one. Raises `BrokenImage` where there are none."""

    def name(self, index: int) -> str:
        """Its name in messages: its file, and its row if the file holds many."""

    def keys(self) -> np.ndarray:
        """uint64 (N,): identifies each image, independent of where the data is stored and of the other images."""

    def identity(self) -> bytes:
        """Names, sizes and times of the files, to recognize other data without reading all of it."""


@dataclass(frozen=True)
class Split:
    """One split of a data source as its files hold it."""

    pictures: Pictures
    labels: Labels


class EncodedImages(Images):
    """`pictures` as squares of a resolution. Raises `UserError` naming the file where one is broken."""

    def __init__(self, split: Split, resolution: int) -> None:
        ids = image_ids(split.pictures.keys(), split.labels)
        super().__init__(np.arange(len(split.labels)), split.labels, ids)
        self.pictures, self.resolution = split.pictures, resolution
        self.substitutes: Substitutes | None = None
        self.max_pixels: int | None = None

    def load(self, index: int) -> np.ndarray:
        """Read, decode, crop and resample one image, or what takes its place."""
        if self.substitutes is not None:
            return self.substitutes.load(self, index)
        try:
            return self.load_raw(index)
        except BrokenImage as error:
            raise broken(self.name(index), str(error)) from error

    def replace_broken(self) -> None:
        self.substitutes = Substitutes(self)

    def limit_pixels(self, max_pixels: int | None) -> None:
        self.max_pixels = max_pixels

    def recall_skipped(self, pairs: Mapping[int, int]) -> None:
        if self.substitutes is not None:
            self.substitutes.recall(pairs)

    def take_skipped(self) -> list[SkippedImage]:
        return [] if self.substitutes is None else self.substitutes.take()

    def loaded_places(self, places: np.ndarray) -> np.ndarray:
        return places if self.substitutes is None else self.substitutes.places(self, places)

    def load_raw(self, index: int) -> np.ndarray:
        """As `load`, but raises `BrokenImage`."""
        try:
            data = self.pictures.read(index)
        except OSError as error:
            raise BrokenImage(f"cannot be read: {error.strerror or error}") from error
        return square(decode(data, self.max_pixels), self.resolution)

    def name(self, index: int) -> str:
        """The file, and the row in it."""
        return self.pictures.name(index)

    def _files_identity(self) -> bytes:
        return self.pictures.identity()
