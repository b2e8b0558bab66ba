"""Packs a dataset of a Python library (torchvision's, Hugging Face's) as `biggan-data prepare` packs files."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from biggan.data.decode import square
from biggan.data.ids import image_ids, numbered
from biggan.data.images import Images
from biggan.data.labels import Labels, note_empty_classes
from biggan.data.notes import note_of_data, notes_of_data
from biggan.data.prepare.items import LABEL_KEYS, as_class, as_rgb, image_and_label
from biggan.data.prepare.job import PreparationJob, contents, finished, prepare
from biggan.data.prepare.progress import PrepareProgress
from biggan.data.sources.folder import ONLY_CLASS
from biggan.data.sources.opening import split_off
from biggan.data.sources.packed import WHOLE
from biggan.errors import UserError

Read = Callable[[Any], tuple[np.ndarray, int | str | None]]
"""An item of a dataset -> pixels (H, W, 3), and the label; None: it has none."""


def from_dataset(
    dataset: Any,
    out: str | os.PathLike,
    *,
    resolution: int,
    val: Any = None,
    val_fraction: float | None = None,
    classes: Sequence[str] | None = None,
    image: Any = None,
    label: Any = None,
    value_range: tuple[float, float] | None = None,
    quiet: bool = False,
) -> Path:
    """Pack a dataset into the folder `out`, which `biggan-train --data.path OUT` trains on.

    `dataset` has `len()` and gives items by number: (image, label) as torchvision's datasets do, a mapping with
    `image` and `label` as Hugging Face's, or an image alone. An image is Pillow's, an array (H, W, 3) or (H, W), or a
    torch tensor (3, H, W); uint8, or floats from 0 to 1. It is cropped in the centre along the long edge, and resampled
    by exact area averaging. A label is a class number from 0, or text, which is numbered in sorted order.

    Every item is read twice, once for its label and once for its pixels, and must be the same: random augmentation
    would be frozen into the packed data. Everything is written beside `out` and renamed at the end. A call that was
    interrupted goes on when it is given again, and one that is done returns at once when its dataset is the same.

    Args:
        resolution: height and width of the packed images, in pixels.
        val: another dataset, for validation.
        val_fraction: or the share of each class that is held out; neither: it is held out when training begins.
        classes: the classes' names by number; default: what the dataset says, else the numbers.
        image: where the image is in an item, a key or a place, if not in the usual one.
        label: the same of the label.
        value_range: what floats range over, (black, white), if not from 0 to 1.
        quiet: print nothing.

    Returns:
        `out`, as a path.

    Raises:
        UserError: for an item that cannot be read as an image with a label, for floats outside of their range, for
            items that change from one reading to the next, and where `out` holds something else.
    """
    if resolution < 1:
        raise UserError(f"resolution is {resolution}, expected at least 1.")
    if val is not None and val_fraction is not None:
        raise UserError("val and val_fraction are both given. Omit one.")
    if val_fraction is not None and not 0.001 <= val_fraction <= 0.5:
        raise UserError(f"val_fraction is {val_fraction}, expected a share in [0.001, 0.5].")

    def read(item: Any) -> tuple[np.ndarray, int | str | None]:
        pixels, of_class = image_and_label(item, image, label)
        return as_rgb(pixels, value_range), None if of_class is None else as_class(of_class)

    given = [dataset] if val is None else [dataset, val]
    with notes_of_data() as notes:
        facts = [_look_through(one, read, quiet=quiet) for one in given]
        names, numbers = _classes(facts, classes, [_names_of(one, label) for one in given])
        parts = [
            _DatasetImages(one, read, digests, labels, resolution)
            for one, (digests, _), labels in zip(given, facts, numbers, strict=True)
        ]
        note_empty_classes(parts[0].all_labels, names)
    splits: dict[str, Images] = {WHOLE: parts[0]} if val is None else {"train": parts[0], "val": parts[1]}
    if val_fraction is not None:
        splits = dict(zip(("train", "val"), split_off(parts[0], val_fraction), strict=True))
    source = f"{type(dataset).__module__}.{type(dataset).__qualname__} of {len(dataset)} items"
    options = {"top_classes": None, "val_fraction": val_fraction}
    job = PreparationJob(source, Path(os.path.abspath(out)), resolution, splits, names, options, tuple(notes))
    _pack(job, out, quiet=quiet)
    return Path(out)


def _pack(job: PreparationJob, out: str | os.PathLike, *, quiet: bool) -> None:
    """Do the job unless it is done, and say so of `out`, as the caller named it."""
    say = (lambda text: None) if quiet else print
    for text in job.notes:
        say(f"note: {text}")
    manifest = finished(job)
    if manifest is not None:
        say(f"{out} is already prepared: {contents(manifest)}.")
        return
    manifest = prepare(job, processes=0, skip_broken=False, reporter=_Silent() if quiet else PrepareProgress())
    command = f"biggan-train --data.path {shlex.quote(str(out))} --model.resolution {job.resolution}"
    say(f"{out}: {contents(manifest)}.\nnext:\n  {command}")


class _DatasetImages(Images):
    """A dataset's images; `digests` (N,) are those of their pixels at the first reading."""

    def __init__(self, dataset: Any, read: Read, digests: np.ndarray, labels: np.ndarray, resolution: int) -> None:
        all_labels = Labels(labels)
        ids = image_ids(numbered(np.uint64(0), np.arange(len(labels))), all_labels)
        super().__init__(np.arange(len(labels)), all_labels, ids)
        self.dataset, self.read, self.digests, self.resolution = dataset, read, digests, resolution

    def load(self, index: int) -> np.ndarray:
        """One image, cropped and resampled. Raises `UserError` where it is another than at the first reading."""
        pixels, _ = _item(self.dataset, index, self.read)
        if _digest(pixels) != self.digests[index]:
            raise UserError(
                f"item {index} of the dataset is another image when it is read again, so it is changed at random. Give "
                f"the dataset without augmentation (training mirrors images with --data.flip true)."
            )
        return square(pixels, self.resolution)

    def name(self, index: int) -> str:
        """Its number."""
        return f"item {index} of the dataset"

    def _files_identity(self) -> bytes:
        return hashlib.blake2b(self.digests.tobytes()).digest()


class _Silent(PrepareProgress):
    def begin(self, total: int, done: int) -> None:
        pass

    def advance(self, images: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def end(self) -> None:
        pass


def _look_through(dataset: Any, read: Read, *, quiet: bool) -> tuple[np.ndarray, list[int | str | None]]:
    """The digest of every image (N,), and the labels."""
    if isinstance(dataset, Mapping):
        listed = ", ".join(map(str, list(dataset)[:5])) or "nothing"
        raise UserError(f"the dataset is a mapping of {listed}. Give one of these, and another as val=.")
    try:
        count = len(dataset)
        dataset.__getitem__  # noqa: B018 - iterable datasets lack it
    except (TypeError, AttributeError) as error:
        raise UserError(
            f"a {type(dataset).__name__} has no length or gives no item by number. Give a dataset with both; of an "
            f"iterable one make a list."
        ) from error
    if not count:
        raise UserError("the dataset has no items. Give one with images.")
    digests, labels = np.zeros(count, np.uint64), []
    progress = _Silent() if quiet else PrepareProgress("read the labels of")
    progress.begin(count, 0)
    try:
        for index in range(count):
            pixels, label = _item(dataset, index, read)
            digests[index] = _digest(pixels)
            labels.append(label)
            progress.advance(1)
    finally:
        progress.end()
    return digests, labels


def _item(dataset: Any, index: int, read: Read) -> tuple[np.ndarray, int | str | None]:
    try:
        item = dataset[index]
    except Exception as error:  # whatever the dataset's own code raises
        raise UserError(f"item {index} of the dataset cannot be read ({type(error).__name__}: {error}).") from error
    try:
        return read(item)
    except UserError as error:
        raise UserError(f"item {index} of the dataset {error}") from error


def _digest(pixels: np.ndarray) -> np.uint64:
    found = hashlib.blake2b(f"{pixels.shape}".encode(), digest_size=8)
    found.update(pixels.tobytes())
    return np.uint64(int.from_bytes(found.digest(), "little"))


def _names_of(dataset: Any, label: Any) -> tuple[str, ...] | None:
    """The classes' names as the dataset says them: `classes` (torchvision), or the label's feature (Hugging Face)."""
    while dataset is not None:
        names = getattr(dataset, "classes", None)
        features = getattr(dataset, "features", None)
        if isinstance(features, dict):
            key = label if label is not None else next((one for one in LABEL_KEYS if one in features), None)
            names = getattr(features.get(key), "names", None) or names
        if isinstance(names, list | tuple) and names:
            return tuple(str(name[0]) if isinstance(name, list | tuple) and name else str(name) for name in names)
        dataset = getattr(dataset, "dataset", None)  # a subset's whole
    return None


def _classes(
    facts: Sequence[tuple[np.ndarray, list[int | str | None]]],
    given: Sequence[str] | None,
    said: Sequence[tuple[str, ...] | None],
) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """The classes' names, and the labels of each dataset as their numbers."""
    labels = [labels for _, labels in facts]
    kinds = {type(label) for one in labels for label in one}
    if kinds == {type(None)}:
        note_of_data(f"the items have no labels: their images are one class ({ONLY_CLASS})")
        return (ONLY_CLASS,), [np.zeros(len(one), dtype=np.int64) for one in labels]
    if len(kinds) > 1:
        listed = ", ".join(sorted("none" if kind is type(None) else kind.__name__ for kind in kinds))
        raise UserError(f"the labels are of different kinds ({listed}), expected class numbers, or text, for all.")
    if given is None and len({one for one in said if one is not None}) > 1:
        raise UserError(
            "the dataset and val= name their classes differently. Give classes=[...], or one data set's splits."
        )
    names = tuple(map(str, given)) if given is not None else said[0]
    if kinds == {str}:
        found = sorted({str(label) for one in labels for label in one})
        names = tuple(found) if names is None else names
        number_of = {name: number for number, name in enumerate(names)}
        if unknown := [name for name in found if name not in number_of]:
            raise UserError(f"the labels have '{unknown[0]}', which is none of the {len(names)} classes. Fix classes=.")
        if given is None:
            note_of_data(f"the labels are text: {len(names)} classes ({', '.join(names[:5])} ...)")
        return names, [np.array([number_of[str(label)] for label in one], dtype=np.int64) for one in labels]
    numbers = [np.array(one, dtype=np.int64) for one in labels]
    most = max(int(one.max()) for one in numbers)
    names = tuple(map(str, range(most + 1))) if names is None else names
    if most >= len(names):
        raise UserError(f"the labels go up to {most}, and there are {len(names)} class names. Give classes=[...].")
    return names, numbers
