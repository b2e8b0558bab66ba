"""Which columns of parquet files hold the images and the labels, and labels of every kind as class numbers."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biggan.data.notes import note_of_data
from biggan.data.sources.folder import ONLY_CLASS
from biggan.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

MOST_CLASSES = 1_000_000  # where no metadata names them
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")
NO_COLUMN = ""
"""In place of a label column's name: the images are one class."""


@dataclass(frozen=True)
class Columns:
    """The columns that are read; `label` None: there is none, and all images are one class."""

    image: str
    label: str | None


def chosen_columns(schema: pa.Schema, path: Path, given: Mapping[str, str]) -> Columns:
    """The columns of a file: those `given` for `image` and `label`, else those of the usual names.

    Raises `UserError` for a column that is not there, and for one that holds no images.
    """
    for name in given.values():
        if name != NO_COLUMN and name not in schema.names:
            raise UserError(f"{path} has no column '{name}'. Its columns are {_kinds(schema)}. Fix --data.columns.")
    image = given.get("image") or next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    label = given.get("label", next((name for name in LABEL_COLUMNS if name in schema.names), NO_COLUMN))
    if image is None or image_leaves(schema, image) == (None, None):
        raise UserError(
            f"{path} has the columns {_kinds(schema)}. Expected `image` (a struct with `bytes` or `path`, binary, or "
            f"the text of a path) and `label` (integers, text, or lists of them). If they have other names: "
            f"--data.columns image=NAME,label=NAME."
        )
    return Columns(image, label or None)


def agreed_columns(schemas: Mapping[Path, pa.Schema], given: Mapping[str, str]) -> Columns:
    """The columns of all files of a data set. Raises `UserError` as `chosen_columns` does, and where two differ."""
    chosen = {path: chosen_columns(schema, path, given) for path, schema in schemas.items()}
    first, expected = next(iter(chosen.items()))
    for path, columns in chosen.items():
        if columns != expected:
            raise UserError(
                f"{first} has images and labels in the columns {expected.image} and {expected.label or '(none)'}, and "
                f"{path} in {columns.image} and {columns.label or '(none)'}. Give files of one data set, or rename the "
                f"columns."
            )
    if expected.label is None and "label" not in given:
        others = ", ".join(name for name in schemas[first].names if name != expected.image) or "none"
        note_of_data(
            f"{first} has no column of labels: all images are one class ({ONLY_CLASS}). Other columns: {others} "
            f"(--data.columns label=NAME)"
        )
    return expected


def image_leaves(schema: pa.Schema, column: str) -> tuple[str | None, str | None]:
    """The dotted names of what holds the encoded bytes, and of what names the images' files; None: there is none."""
    import pyarrow.types as types

    kind = schema.field(column).type
    if types.is_struct(kind):
        names = [kind.field(n).name for n in range(kind.num_fields)]
        return tuple(f"{column}.{leaf}" if leaf in names else None for leaf in ("bytes", "path"))  # type: ignore[return-value]
    if types.is_binary(kind) or types.is_large_binary(kind):
        return column, None
    return None, column if _is_text(kind) else None


def class_names(schema: pa.Schema, label: str | None) -> tuple[str, ...] | None:
    """The class names in the hub's metadata, of a label or of a list of labels; None where there are none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    feature = features.get(label) if isinstance(features, dict) else None
    while isinstance(feature, list) and feature:
        feature = feature[0]
    while isinstance(feature, dict) and "names" not in feature and "feature" in feature:
        feature = feature["feature"]
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names)) if names and isinstance(names, (list, dict)) else None


@dataclass(frozen=True)
class FileLabels:
    """The labels of one file as it holds them: `flat` one after another, and how many each of its rows has."""

    path: Path
    flat: pa.Array
    counts: np.ndarray

    @property
    def is_text(self) -> bool:
        """Whether they are names of classes."""
        return _is_text(self.flat.type)

    def row_of(self, place: int) -> str:
        """The row of the label at a place of `flat`, and the file."""
        return f"row {int(np.searchsorted(np.cumsum(self.counts), place, side='right'))} of {self.path}"

    def names(self) -> list[str]:
        """The labels as text, however Unicode writes an accented letter. Raises `UserError` for one that is missing."""
        names = self.flat.to_pylist()
        if None in names:
            raise UserError(f"{self.row_of(names.index(None))} has no label. Remove the row, or choose another column.")
        return [unicodedata.normalize("NFC", name) for name in names]

    def numbers(self, names: tuple[str, ...] | None) -> np.ndarray:
        """The labels as class numbers. Raises `UserError` for what is none, or out of range."""
        import pyarrow.types as types

        if types.is_floating(self.flat.type):
            values = self.flat.cast("float64").fill_null(np.nan).to_numpy(zero_copy_only=False)
            wrong = values != np.floor(values)
            if wrong.any():
                place = int(wrong.argmax())
                raise UserError(
                    f"{self.row_of(place)} has the label {self.flat[place].as_py()}, expected a whole number, the "
                    f"class's. Choose a column of classes: --data.columns label=NAME (label= for none)."
                )
            values = np.clip(values, -1, float(2**62)).astype(np.int64)
        else:
            # A number beyond int64 turns negative, which is refused below.
            values = self.flat.cast("int64", safe=False).fill_null(-1).to_numpy(zero_copy_only=False)
        wrong = (values < 0) | (values >= (len(names) if names else np.iinfo(np.int64).max))
        if wrong.any():
            place = int(wrong.argmax())
            wanted = f"0 to {len(names) - 1}, as its metadata names {len(names)} classes" if names else "0 or more"
            raise UserError(
                f"{self.row_of(place)} has the label {self.flat[place].as_py()}, out of range: expected {wanted}. Fix "
                f"the file, or omit it if its labels are secret."
            )
        return values


def labels_of(column: pa.Array, path: Path) -> FileLabels:
    """A column of labels, or of lists of labels. Raises `UserError` for one of another kind."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    lists = types.is_list(column.type) or types.is_large_list(column.type)
    counts = pc.list_value_length(column).fill_null(0).to_numpy(False) if lists else np.ones(len(column), np.int64)
    flat = pc.list_flatten(column) if lists else column
    if types.is_dictionary(flat.type):
        flat = flat.dictionary_decode()
    known = (types.is_integer, types.is_boolean, types.is_floating, _is_text)
    if not any(is_kind(flat.type) for is_kind in known):
        raise UserError(
            f"{path} has labels of type {column.type}, expected integers, text, or lists of them. Choose another "
            f"column: --data.columns label=NAME."
        )
    if (counts == 0).any():
        raise UserError(f"row {int(np.argmin(counts))} of {path} has an empty list of labels, expected at least one.")
    return FileLabels(path, flat, counts)


def no_labels(path: Path, rows: int) -> FileLabels:
    """All rows of a file as class 0."""
    import pyarrow as pa

    return FileLabels(path, pa.array(np.zeros(rows, np.int64)), np.ones(rows, np.int64))


def numbered_classes(
    files: list[FileLabels], names: tuple[str, ...] | None
) -> tuple[list[np.ndarray], tuple[str, ...] | None]:
    """Class numbers for the labels of each file, and the classes' names; None where the labels name none.

    `names` are those of the metadata. Text without them is numbered in sorted order, over all files together.
    """
    import pyarrow.types as types

    texts = {file.is_text for file in files}
    if len(texts) > 1:
        listed = ", ".join(f"{file.path}: {file.flat.type}" for file in files[:5])
        raise UserError(f"the files' labels are of different kinds ({listed}). Give files of one data set.")
    if texts == {False}:
        if names is None and all(types.is_boolean(file.flat.type) for file in files):
            names = ("false", "true")
        return [file.numbers(names) for file in files], names
    written = [file.names() for file in files]
    if names is None:
        names = tuple(sorted(set().union(*written)))
        shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
        note_of_data(f"the labels are text: {len(names)} classes, numbered in sorted order ({shown})")
    number_of = {unicodedata.normalize("NFC", name): number for number, name in enumerate(names)}
    for file, labels in zip(files, written, strict=True):
        if unknown := set(labels) - number_of.keys():
            place = next(place for place, name in enumerate(labels) if name in unknown)
            raise UserError(
                f"{file.row_of(place)} has the label '{labels[place]}', which is none of the {len(names)} classes that "
                f"its metadata names. Fix the file."
            )
    return [np.array([number_of[name] for name in labels], dtype=np.int64) for labels in written], names


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return (
        types.is_string(kind) or types.is_large_string(kind) or getattr(types, "is_string_view", lambda _: False)(kind)
    )


def _kinds(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
