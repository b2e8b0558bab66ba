"""Broken images: what takes the place of one, where `data.on_broken` is skip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from biggan.data.decode import BrokenImage
from biggan.errors import UserError

if TYPE_CHECKING:
    from biggan.data.images import Images


class BrokenImageError(UserError):
    """An image that cannot be read, and that nothing may take the place of."""

    name = ""
    """Its file, and its row if the file holds many."""
    why = ""


def broken(name: str, why: str, what: str = "") -> BrokenImageError:
    """The error for the image of this name."""
    error = BrokenImageError(
        f"{name} is broken: {why}.{what} Fix or remove it, give --data.on_broken skip, or pack the data with "
        f"biggan-data prepare --skip-broken and train on that."
    )
    error.name, error.why = name, why
    return error


@dataclass(frozen=True)
class SkippedImage:
    """A broken image, and the one that took its place; the numbers are the source's own."""

    index: int
    name: str
    why: str
    instead: int
    instead_name: str


class Substitutes:
    """What takes the place of broken images of one split: the next image of the same class (by first label) in the
    order of ids that can be read, the first one after the last. So it depends on the data alone; once one has been
    found it stays, also in later sessions (`recall`), in which the broken image may have been mended."""

    def __init__(self, images: Images) -> None:
        self.indices, self.labels, self.keys = images.indices, images.labels, images.ids["key"]
        self.instead: dict[int, int] = {}
        self.found: list[SkippedImage] = []
        """Those found since they were last taken from here."""

    def load(self, images: Images, index: int) -> np.ndarray:
        """The pixels of the image, or of the one in its place. Raises `BrokenImageError` where its class has none."""
        if (known := self.instead.get(index)) is not None:
            try:
                return images.load_raw(known)
            except BrokenImage:
                pass  # broken too, meanwhile
        try:
            if known is None:
                return images.load_raw(index)
            why = "recorded as broken"
        except BrokenImage as error:
            why = str(error)
        for other in self._others(index):
            try:
                pixels = images.load_raw(other)
            except BrokenImage:
                continue
            self.instead[index] = other
            self.found.append(SkippedImage(index, images.name(index), why, other, images.name(other)))
            return pixels
        raise broken(images.name(index), why, " No image of its class can be read.")

    def _others(self, index: int) -> Iterator[int]:
        place = int(np.flatnonzero(self.indices == index)[0])
        members = np.flatnonzero(self.labels == self.labels[place])
        order = members[np.lexsort((members, self.keys[members]))]
        start = int(np.flatnonzero(order == place)[0])
        return (int(self.indices[one]) for one in np.roll(order, -start)[1:])

    def recall(self, pairs: Mapping[int, int]) -> None:
        """Take over what earlier sessions found; pairs that are none of this split are left out."""
        label_of = dict(zip(self.indices.tolist(), self.labels.tolist(), strict=True)) if pairs else {}
        for index, other in pairs.items():
            if index in label_of and label_of[index] == label_of.get(other):
                self.instead[index] = other

    def take(self) -> list[SkippedImage]:
        """What was found since the last call."""
        taken, self.found = self.found, []
        return taken

    def places(self, images: Images, places: np.ndarray) -> np.ndarray:
        """The places in `images` of what was loaded for these places."""
        if not self.instead:
            return places
        actual = [self.instead.get(index, index) for index in images.indices[places].tolist()]
        place_of = {index: place for place, index in enumerate(images.indices.tolist())}
        return np.array([place_of.get(one, place) for one, place in zip(actual, places, strict=True)], dtype=np.int64)
