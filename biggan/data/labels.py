"""Labels, one or several per image, and the most common classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from biggan.data.notes import note_of_data
from biggan.errors import UserError


@dataclass(frozen=True)
class Labels:
    """Class numbers of N images.

    `first` is int64 (N,): each image's label, or the first of several. Where images have several, `values` holds
    all of them one after another, and image i's are `values[starts[i] : starts[i + 1]]`; else both are None.
    """

    first: np.ndarray
    values: np.ndarray | None = None
    starts: np.ndarray | None = None

    @classmethod
    def from_lists(cls, values: np.ndarray, starts: np.ndarray) -> Labels:
        """From flat values (M,) and starts (N + 1,); every list has at least one entry. Plain where all have one."""
        values, starts = values.astype(np.int64), starts.astype(np.int64)
        if len(values) == len(starts) - 1:
            return cls(values)
        return cls(values[starts[:-1]], values, starts)

    def __len__(self) -> int:
        return len(self.first)

    @property
    def several(self) -> bool:
        """Whether some image has more than one label."""
        return self.values is not None

    def of(self, index: int) -> np.ndarray:
        """All labels of one image."""
        if self.values is None or self.starts is None:
            return self.first[index : index + 1]
        return self.values[self.starts[index] : self.starts[index + 1]]

    def flat(self) -> tuple[np.ndarray, np.ndarray]:
        """Flat values (M,) and starts (N + 1,), also of single labels."""
        if self.values is None or self.starts is None:
            return self.first, np.arange(len(self.first) + 1)
        return self.values, self.starts

    def take(self, indices: np.ndarray) -> Labels:
        """The labels of some images, in that order."""
        if self.values is None or self.starts is None:
            return Labels(self.first[indices])
        counts = np.diff(self.starts)[indices]
        starts = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(self.starts[:-1][indices] - starts[:-1], counts) + np.arange(starts[-1])
        return Labels.from_lists(self.values[places], starts)

    def counts(self, classes: int) -> np.ndarray:
        """How many images have each class, int64 (classes,). An image counts for each of its labels."""
        return np.bincount(self.flat()[0], minlength=classes)

    def keep(self, kept: np.ndarray, classes: int) -> tuple[np.ndarray, Labels]:
        """Indices of the images that have a label in `kept`, and their labels in it, renumbered in `kept`'s order."""
        new = np.full(classes, -1, dtype=np.int64)
        new[kept] = np.arange(len(kept))
        values, starts = self.flat()
        values = new[values]
        left = np.concatenate([[0], np.cumsum(values >= 0)])[starts]
        indices = np.flatnonzero(np.diff(left))
        return indices, Labels.from_lists(values[values >= 0], np.concatenate([left[indices], left[-1:]]))


def most_common(splits: list[Labels], classes: int, count: int) -> np.ndarray:
    """The `count` most common classes of all splits together, in ascending order; of equally common ones the lower.

    The renumbered classes keep their order, so keeping all classes changes nothing. Raises `UserError` if fewer
    classes have images.
    """
    counts = np.sum([labels.counts(classes) for labels in splits], axis=0)
    if count > np.count_nonzero(counts):
        raise UserError(
            f"data.top_classes is {count}, but the data has {np.count_nonzero(counts)} classes. Give at most that "
            "number."
        )
    return np.sort(np.argsort(-counts, kind="stable")[:count])


def first_of_each(labels: Labels, names: tuple[str, ...], count: int) -> np.ndarray:
    """Indices, ascending, of the first `count` images of each class (by first label). Raises where one has fewer."""
    counts = np.bincount(labels.first, minlength=len(names))
    if count > counts.min():
        rarest = int(counts.argmin())
        raise UserError(
            f"data.train_per_class is {count}, but class '{names[rarest]}' has only {counts[rarest]} training images. "
            f"Give at most {counts[rarest]}, or omit it to use all."
        )
    order = np.argsort(labels.first, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.sort(order[starts[:, None] + np.arange(count)].ravel())


def note_empty_classes(labels: Labels, names: tuple[str, ...]) -> None:
    """Note the classes that have no training image."""
    empty = [names[number] for number in np.flatnonzero(labels.counts(len(names)) == 0)]
    if empty:
        note_of_data(
            f"{len(empty)} classes have no training image: {', '.join(empty[:5])}{' ...' if len(empty) > 5 else ''}"
        )
