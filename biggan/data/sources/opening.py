"""Opening the data that a configuration names: the sources that come with the package, splits, the classes kept."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from biggan.config import Config, DataConfig
from biggan.data.ids import hold_out
from biggan.data.images import Images, Source
from biggan.data.labels import first_of_each, most_common, note_empty_classes
from biggan.data.notes import classes_in_words, note_of_data, notes_of_data
from biggan.data.sources.digits import load_digits
from biggan.data.sources.encoded import EncodedImages, Split
from biggan.data.sources.folder import open_folder
from biggan.data.sources.hub_files import any_parquet
from biggan.data.sources.packed import is_packed, open_packed
from biggan.data.sources.parquet import open_parquet
from biggan.data.sources.preparable import PREPARABLE, preparable_kind
from biggan.data.sources.registry import SOURCES, DataSource
from biggan.errors import UserError, check_known

Opened = tuple[Images, Images | None, tuple[str, ...]]
"""Training images, validation images where the data has them, the classes' names."""


def _encoded(read: Callable[[Path], tuple[Split, Split | None, tuple[str, ...]]]) -> Callable[[Path, int], Opened]:
    """A source whose images are decoded as they are drawn."""

    def open_at(path: Path, resolution: int) -> Opened:
        return _decoded(read(path), resolution)

    return open_at


def _decoded(read: tuple[Split, Split | None, tuple[str, ...]], resolution: int) -> Opened:
    train, val, classes = read
    return EncodedImages(train, resolution), None if val is None else EncodedImages(val, resolution), classes


def _open_columns(path: Path, resolution: int, columns: Mapping[str, str]) -> Opened:
    return _decoded(open_parquet(path, columns), resolution)


def _open_digits(path: Path, resolution: int) -> Opened:
    digits = load_digits(resolution)
    return digits.train, digits.val, digits.classes


def _open_auto(path: Path, resolution: int) -> Opened:
    return SOURCES[detect(path)].open(path, resolution)


AUTO = DataSource(_open_auto)
DIGITS = DataSource(_open_digits, has_files=False)
FOLDER = DataSource(_encoded(open_folder))
PARQUET = DataSource(_encoded(open_parquet), open_columns=_open_columns)
PACKED = DataSource(open_packed)


def open_source(config: Config, *, any_classes: bool = False) -> Source:
    """The data that the configuration names, at the model's resolution.

    `any_classes`: the model does not exist yet, and gets the data's number of classes. Raises `UserError` for an
    unknown source or a path that is not there, and where the model has another number of classes than the data.
    """
    with notes_of_data() as notes:
        train, val, classes = open_data(
            config.data.source, config.data.path, config.model.resolution, config.data.columns
        )
        source = replace(arrange(train, val, classes, config.data), notes=tuple(notes))
    if len(source.classes) != config.model.classes and not any_classes:
        raise UserError(
            f"the data ({config.data.path or config.data.source}) has {classes_in_words(len(source.classes))}, and "
            f"model.classes is {config.model.classes}. Give --model.classes {len(source.classes)}, or choose other "
            "data."
        )
    return source


def open_data(source: str, path: str | None, resolution: int, columns: Mapping[str, str] | None = None) -> Opened:
    """The images of a source, unchanged. Prepared data is recognized, whatever source it was made from.

    `columns` are those of `data.columns`; in prepared data they were chosen before. Classes without a training image
    are noted.
    """
    opened = _open(source, path, resolution, columns or {})
    note_empty_classes(opened[0].all_labels, opened[2])
    return opened


def _open(source: str, path: str | None, resolution: int, columns: Mapping[str, str]) -> Opened:
    check_known(source, SOURCES, "data.source")
    if not SOURCES[source].has_files:
        if columns:
            raise UserError(f"data.columns names columns of a table, and data.source is {source}. Omit it.")
        if path is not None:
            raise UserError(
                f"data.path is {path}, but data.source is {source}, which has no files. Give --data.source auto (or "
                f"folder, parquet) to read that path, or omit --data.path."
            )
        return SOURCES[source].open(Path(), resolution)
    place = _existing(source, path)
    if source in ("auto", "folder") and (special := preparable_kind(place)) is not None:
        raise UserError(
            f"{place} is {PREPARABLE[special].what}, which is packed before it is trained on: run biggan-data prepare "
            f"{place} --resolution {resolution} --out DIR, then give --data.path DIR."
        )
    kind = detect(place) if source == "auto" or is_packed(place) else source
    if kind == "folder" and place.is_file():
        raise UserError(
            f"{place} is a file, expected a folder with one sub-folder per class, a .parquet file, or .npz, .npy, .h5, "
            f".tar and StyleGAN's .zip for biggan-data prepare. A dataset of a Python library is packed by "
            f"biggan.data.from_dataset."
        )
    if kind == "packed" and not is_packed(place):
        raise UserError(
            f"{place} holds no prepared data. Make it with biggan-data prepare SOURCE --out {shlex.quote(str(place))}."
        )
    if kind != "parquet" and source == "folder" and detect(place) == "parquet":
        raise UserError(f"{place} has parquet files, but data.source is folder. Give --data.source parquet, or auto.")
    if columns and kind != "packed":
        open_columns = SOURCES[kind].open_columns
        if open_columns is None:
            raise UserError(f"data.columns names columns of a table, and {place} is read as {kind}. Omit it.")
        return open_columns(place, resolution, columns)
    return SOURCES[kind].open(place, resolution)


def source_for(path: str, source: str) -> str:
    """`source`, where it reads what lies at the path, else `auto`."""
    if source not in SOURCES or not SOURCES[source].has_files:
        return "auto"
    if not Path(path).exists():
        return source
    return source if detect(Path(path)) in (source, "packed") else "auto"


def detect(path: Path) -> str:
    """`packed`, `parquet` or `folder`: what lies at `path`."""
    if path.is_file():
        return "parquet" if path.suffix == ".parquet" else "folder"
    if is_packed(path):
        return "packed"
    return "parquet" if any_parquet(path) else "folder"


def arrange(train: Images, val: Images | None, classes: tuple[str, ...], config: DataConfig) -> Source:
    """Hold out validation images, keep the most common classes, limit and flip the training images.

    Under `data.no_validation` there are no validation images. Images keep their order, an image is held out by its own
    id, and classes are counted over both splits together. So each of these can be done in preparation or in training,
    with the same result.
    """
    if config.no_validation:
        if val is not None:
            raise UserError(
                "data.no_validation is on, but the data has a validation split of its own. Omit the option, or give "
                "the data as one split."
            )
        note_of_data(
            f"data.no_validation: all {len(train):,} images are for training. D's accuracy on validation images and "
            f"what D memorizes are not measured"
        )
    elif val is None:
        train, val = split_off(train, config.val_fraction)
    if config.top_classes is not None:
        train, val, classes = keep_most_common(train, val, classes, config.top_classes)
    if config.train_per_class is not None:
        train = train.subset(first_of_each(train.all_labels, classes, config.train_per_class))
    if val is None:
        val = train.subset(np.arange(0))
    source = Source(train.subset(np.arange(len(train)), flip=config.flip), val, classes)
    for images in (source.train, source.val):
        images.limit_pixels(config.max_pixels)
        if config.on_broken == "skip":
            images.replace_broken()
    return source


def keep_most_common(train: Images, val: Images | None, classes: tuple[str, ...], count: int) -> Opened:
    """Only the `count` classes most common in both splits together, renumbered in their old order (Section 5.2).

    Images that keep no label are left out. Of equally common classes the first are kept.
    """
    kept = most_common([images.all_labels for images in (train, val) if images is not None], len(classes), count)
    train = train.subset(*train.all_labels.keep(kept, len(classes)))
    if val is not None:
        val = val.subset(*val.all_labels.keep(kept, len(classes)))
        if not len(val):
            raise UserError(f"none of the {count} kept classes has a validation image. Give a larger data.top_classes.")
    return train, val, tuple(classes[c] for c in kept)


def split_off(images: Images, share: float) -> tuple[Images, Images]:
    """Training and validation images, the latter a fixed random share of each class."""
    places, held = hold_out(images.ids, share)
    return images.subset(places), images.subset(held)


def _existing(source: str, path: str | None) -> Path:
    if path is None:
        raise UserError(f"data.source is {source}, which needs files, but data.path is not set. Give --data.path PATH.")
    if not Path(path).exists():
        raise UserError(f"data.path is {path}, which does not exist. Give the path of the data.")
    return Path(path)
