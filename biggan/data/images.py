"""The data of a run: two splits of labelled images."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from biggan.data.broken import SkippedImage
from biggan.data.ids import image_ids, numbered
from biggan.data.labels import Labels
from biggan.rng import uniform


@dataclass(frozen=True)
class Position:
    """One image of a batch: its index, and the key of its random draws (augmentation)."""

    index: int
    key: int


FLIP, LABEL = 1, 2
"""The random draws for an image, each with its own number, so that they are independent of each other."""


class Images(Dataset, abc.ABC):
    """Labelled uint8 images of one size; a subclass says with `load` where the pixels come from.

    `indices` (N,) are the subclass's own numbers of the images that take part, in order; `labels` and
    `ids` (who each of them is; see `ids.py`) go with them.
    Every random draw for an image (a flip, one of several labels) depends only on its position's key. So the bits are
    the same for any number of workers, and for packed and unpacked data.
    """

    def __init__(self, indices: np.ndarray, labels: Labels, ids: np.ndarray, *, flip: bool = False) -> None:
        self.indices, self.all_labels, self.ids, self.flip = indices, labels, ids, flip

    @abc.abstractmethod
    def load(self, index: int) -> np.ndarray:
        """The pixels of the subclass's image `index`, uint8 (R, R, 3)."""

    def load_raw(self, index: int) -> np.ndarray:
        """As `load`, but raises `BrokenImage`, for callers that can skip the image."""
        return self.load(index)

    def replace_broken(self) -> None:
        """From now on let the next image of its class take the place of a broken one (see `Substitutes`)."""

    def limit_pixels(self, max_pixels: int | None) -> None:
        """Refuse to decode larger images than this, width times height; None: than `decode.MAX_PIXELS`."""

    def recall_skipped(self, pairs: Mapping[int, int]) -> None:
        """Take over which images took the place of broken ones in earlier sessions."""

    def take_skipped(self) -> list[SkippedImage]:
        """The broken images that were replaced since the last call."""
        return []

    def loaded_places(self, places: np.ndarray) -> np.ndarray:
        """The places of what was loaded for these places: others where images are broken."""
        return places

    def identity(self) -> bytes:
        """A digest that identifies these images without reading all of them."""
        found = hashlib.blake2b(self._files_identity())
        for part in (self.indices, *self.all_labels.flat()):
            found.update(np.ascontiguousarray(part, dtype=np.int64).tobytes())
        return found.digest()

    @abc.abstractmethod
    def _files_identity(self) -> bytes:
        """A digest of what the pixels are read from."""

    def name(self, index: int) -> str:
        """The name of the subclass's image `index` in messages."""
        return f"image {index}"

    def load_many(self, indices: np.ndarray) -> np.ndarray:
        """Several of the subclass's images at once, uint8 (B, R, R, 3)."""
        return np.stack([self.load(int(index)) for index in indices])

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,): each image's label, or the first of several."""
        return self.all_labels.first

    def pixels(self, places: np.ndarray | list[int] | slice) -> np.ndarray:
        """The images at some places of 0 .. N-1, as they are: uint8 (B, R, R, 3), never flipped."""
        return self.load_many(self.indices[places])

    def subset(self, places: np.ndarray, labels: Labels | None = None, *, flip: bool | None = None) -> Images:
        """The images at `places`, in that order; optionally with other labels or another flip."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.indices, new.ids = self.indices[places], self.ids[places]
        new.all_labels = self.all_labels.take(places) if labels is None else labels
        new.flip = self.flip if flip is None else flip
        return new

    def __getitem__(self, position: Position) -> tuple[Tensor, Tensor]:
        images, labels = self.__getitems__([position])
        return images[0], labels[0]

    def __getitems__(self, positions: list[Position]) -> tuple[Tensor, Tensor]:
        """A whole batch at once: images (B, 3, R, R) float32 in [-1, 1], labels (B,) int64."""
        places = np.array([position.index for position in positions], dtype=np.int64)
        pixels = self.pixels(places)
        places = self.loaded_places(places)
        labels = self.labels[places]
        keys = np.array([position.key for position in positions], dtype=np.uint64)
        if self.flip:
            mirrored = uniform(keys, FLIP) < 0.5
            pixels[mirrored] = pixels[mirrored][:, :, ::-1]
        if self.all_labels.several:
            for row, (place, share) in enumerate(zip(places, uniform(keys, LABEL), strict=True)):
                own = self.all_labels.of(place)
                labels[row] = own[int(share * len(own))]
        return to_float(torch.from_numpy(pixels)), torch.from_numpy(labels)


class ImageArray(Images):
    """Images held as one uint8 array (N, R, R, 3), with int64 labels (N,).

    Without `ids` the images' numbers identify them.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | Labels,
        ids: np.ndarray | None = None,
        *,
        flip: bool = False,
    ) -> None:
        labels = labels if isinstance(labels, Labels) else Labels(labels.astype(np.int64))
        if ids is None:
            ids = image_ids(numbered(np.uint64(0), np.arange(len(images))), labels)
        super().__init__(np.arange(len(images)), labels, ids, flip=flip)
        self.images = images

    def load(self, index: int) -> np.ndarray:
        """One image."""
        return self.images[index]

    def load_many(self, indices: np.ndarray) -> np.ndarray:
        """A copy of several."""
        return self.images[indices]

    def _files_identity(self) -> bytes:
        return hashlib.blake2b(np.ascontiguousarray(self.images).tobytes()).digest()

    def subset(self, places: np.ndarray, labels: Labels | None = None, *, flip: bool | None = None) -> ImageArray:
        """As for all images; the array is cut too, so that `images` and `labels` always go together."""
        labels = self.all_labels.take(places) if labels is None else labels
        flip = self.flip if flip is None else flip
        return ImageArray(self.images[places], labels, self.ids[places], flip=flip)


def to_float(images: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W) in [-1, 1]."""
    return images.permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> np.ndarray:
    """Float (N, 3, H, W) in [-1, 1] -> uint8 (N, H, W, 3), to the nearest value. NaN becomes 0 (black)."""
    scaled = images.detach().float().cpu().add(1).mul(127.5).round().clamp(0, 255).nan_to_num(0)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).numpy()


@dataclass(frozen=True)
class Source:
    """A training and a validation split of labelled images, and the classes' names."""

    train: Images
    val: Images
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What was said when it was opened: what is left out, and how the data was read."""

    def identity(self) -> dict[str, int | str]:
        """The data's identity for run.json: counts, and digests of image ids, labels and class names.

        It does not depend on where the data is stored, packed or not. No pixel is read, so an image that was changed
        under its old name is not noticed.
        """
        images, labels = (hashlib.blake2b(digest_size=16) for _ in range(2))
        for split in (self.train, self.val):
            images.update(split.ids["key"].tobytes())
            for part in split.all_labels.flat():
                labels.update(np.ascontiguousarray(part, dtype=np.int64).tobytes())
        names = hashlib.blake2b("\0".join(self.classes).encode(errors="surrogateescape"), digest_size=16)
        return {
            "train": len(self.train),
            "val": len(self.val),
            "classes": len(self.classes),
            "images": images.hexdigest(),
            "labels": labels.hexdigest(),
            "class_names": names.hexdigest(),
        }
