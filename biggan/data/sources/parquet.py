"""Parquet files as on the Hugging Face hub: a column of structs with an image's `bytes`, and one of labels.

Only labels are read when the source is opened. Images are read by row group when they are drawn; the newest groups
stay in memory up to `CACHE_BYTES`, which holds all of a small data set.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biggan.data.decode import BrokenImage
from biggan.data.ids import keys_of, numbered
from biggan.data.labels import Labels
from biggan.data.sources.encoded import Split
from biggan.data.sources.hub_files import by_split
from biggan.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

CACHE_BYTES = 512 * 2**20  # encoded images held by one process
MOST_CLASSES = 1_000_000  # where no metadata names them
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")


class Rows:
    """The images of several parquet files, one after another."""

    def __init__(self, paths: list[Path], root: Path, column: str, groups: list[tuple[int, int, int]]) -> None:
        """`groups` lists the row groups of all files in order: (file, group in it, rows); `root` is above all files."""
        self.paths, self.root, self.column, self.groups = paths, root, column, groups
        self.starts = np.concatenate([[0], np.cumsum([rows for *_, rows in groups])]).astype(np.int64)
        self._forget()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, index: int) -> bytes:
        """An image's bytes. Raises `BrokenImage` where the row has none."""
        group = int(np.searchsorted(self.starts, index, side="right")) - 1
        value = self._group(group)[index - int(self.starts[group])].as_py()
        if value is None:
            raise BrokenImage("the row has no image bytes")
        return value

    def name(self, index: int) -> str:
        """The file, and the row in it, from 0."""
        group = int(np.searchsorted(self.starts, index, side="right")) - 1
        file = self.groups[group][0]
        before = next(place for place, (number, *_) in enumerate(self.groups) if number == file)
        return f"row {index - int(self.starts[before])} of {self.paths[file]}"

    def keys(self) -> np.ndarray:
        """Digests of the files' paths below the root and the rows' numbers."""
        rows = np.zeros(len(self.paths), dtype=np.int64)
        for file, _, count in self.groups:
            rows[file] += count
        files = keys_of(self._below_root())
        return np.concatenate([numbered(key, np.arange(count)) for key, count in zip(files, rows, strict=True)])

    def identity(self) -> bytes:
        """Digest of the files' names, sizes, times of change and numbers of rows."""
        stats = [path.stat() for path in self.paths]
        parts = [
            f"{name} {found.st_size} {found.st_mtime_ns}" for name, found in zip(self._below_root(), stats, strict=True)
        ]
        return hashlib.blake2b("\0".join([*parts, *map(str, self.groups)]).encode(errors="surrogateescape")).digest()

    def _below_root(self) -> list[str]:
        return [path.relative_to(self.root).as_posix() for path in self.paths]

    def _group(self, number: int) -> pa.ChunkedArray:
        """The images' bytes of one row group, from the cache or from its file."""
        import pyarrow as pa

        if self._process != os.getpid():  # a forked worker must not share its parent's open files
            self._forget()
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        file, group, _ = self.groups[number]
        if file not in self._files:
            self._files[file] = _open_file(self.paths[file])
        # Whole groups are the smallest unit that can be read; the path beside the bytes is left alone.
        leaf = _bytes_leaf(self._files[file].schema_arrow, self.column)
        try:
            table = self._files[file].read_row_group(group, columns=[leaf], use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"cannot read row group {group} of {self.paths[file]}: {error}. Download the file again."
            ) from error
        column = table.column(0)
        self._cache[number] = column if leaf == self.column else pa.chunked_array([c.field(0) for c in column.chunks])
        self._held += self._cache[number].nbytes
        while self._held > CACHE_BYTES and len(self._cache) > 1:
            self._held -= self._cache.popitem(last=False)[1].nbytes
        return self._cache[number]

    def _forget(self) -> None:
        self._process, self._held = os.getpid(), 0
        self._cache: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._files: dict[int, pq.ParquetFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "root": self.root, "column": self.column, "groups": self.groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def open_parquet(path: Path) -> tuple[Split, Split | None, tuple[str, ...]]:
    """The splits of a parquet file or a folder of them (the second None where it has one only), and the classes.

    Classes are named by the hub's metadata where the files have it, else by their numbers. Raises `UserError` for
    files or columns that are not there, for files that disagree on the classes, and for labels out of range.
    """
    train, val = by_split(path)
    names = _agreed_names([*train, *val])
    root = path.parent if path.is_file() else path
    split = _read_split(train, names, root)
    other = _read_split(val, names, root) if val else None
    if names is None:
        most = max(int(part.labels.flat()[0].max()) for part in (split, other) if part is not None)
        if most >= MOST_CLASSES:
            raise UserError(
                f"{path} has the label {most}, expected class numbers below {MOST_CLASSES}. Fix its labels."
            )
        names = tuple(str(number) for number in range(most + 1))
    return split, other, names


def _read_split(paths: list[Path], names: tuple[str, ...] | None, root: Path) -> Split:
    groups, values, lengths = [], [], []
    image = ""
    for number, path in enumerate(paths):
        file = _open_file(path)
        image, label = _columns(file.schema_arrow, path)
        groups += [(number, group, file.metadata.row_group(group).num_rows) for group in range(file.num_row_groups)]
        flat, counts = _read_labels(file, label, path, names)
        values.append(flat)
        lengths.append(counts)
    if not sum(rows for *_, rows in groups):
        raise UserError(f"{paths[0]} has no rows. Give files with images.")
    starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return Split(Rows(paths, root, image, groups), Labels.from_lists(np.concatenate(values), starts))


def _open_file(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path} as parquet: {error}. Download the file again, or remove it.") from error


def _columns(schema: pa.Schema, path: Path) -> tuple[str, str]:
    """The names of the image and the label column."""
    image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if image is None or label is None or _bytes_leaf(schema, image) is None:
        raise UserError(
            f"{path} has the columns {', '.join(f'{field.name}: {field.type}' for field in schema)}. Expected "
            f"`image` (a struct with `bytes`, or binary) and `label` (an integer, or a list of integers)."
        )
    return image, label


def _bytes_leaf(schema: pa.Schema, column: str) -> str | None:
    """The dotted name of the column that holds the encoded bytes; None where there is none."""
    import pyarrow.types as types

    kind = schema.field(column).type
    if types.is_struct(kind):
        return f"{column}.bytes" if kind.get_field_index("bytes") >= 0 else None
    return column if types.is_binary(kind) or types.is_large_binary(kind) else None


def _read_labels(
    file: pq.ParquetFile, column: str, path: Path, names: tuple[str, ...] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Flat labels, and how many each row has. Raises `UserError` for what is not a class number."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    labels = file.read(columns=[column], use_threads=False).column(0).combine_chunks()
    lists = types.is_list(labels.type) or types.is_large_list(labels.type)
    counts = pc.list_value_length(labels).fill_null(0).to_numpy(False) if lists else np.ones(len(labels), np.int64)
    flat = pc.list_flatten(labels) if lists else labels
    row_of = np.repeat(np.arange(len(labels)), counts)
    if not types.is_integer(flat.type):
        raise UserError(f"{path} has labels of type {labels.type}, expected integers or lists of integers.")
    signed = flat.cast("int64", safe=False)  # a number beyond int64 turns negative, which is refused below
    values = signed.fill_null(-1).to_numpy(zero_copy_only=False)
    if (counts == 0).any():
        raise UserError(f"row {int(np.argmin(counts))} of {path} has an empty list of labels, expected at least one.")
    wrong = (values < 0) | (values >= (len(names) if names else np.iinfo(np.int64).max))
    if wrong.any():
        place = int(wrong.argmax())
        given = flat[place].as_py()
        wanted = f"0 to {len(names) - 1}, as its metadata names {len(names)} classes" if names else "0 or more"
        raise UserError(
            f"row {row_of[place]} of {path} has the label {given}, out of range: expected {wanted}. Fix the file, or "
            f"omit it if its labels are secret."
        )
    return values, counts


def _agreed_names(paths: list[Path]) -> tuple[str, ...] | None:
    """The class names that all files give, None where none does. Raises `UserError` where two files disagree."""
    found = [_class_names(_open_file(path).schema_arrow) for path in paths]
    for path, names in zip(paths, found, strict=True):
        if names != found[0]:
            raise UserError(
                f"{paths[0]} and {path} disagree on the classes: {_listed(found[0])}, and {_listed(names)}. Expected "
                f"the same names in the same order in all files. Give files of one data set, or fix their metadata."
            )
    return found[0]


def _listed(names: tuple[str, ...] | None) -> str:
    if names is None:
        return "no names"
    return f"{len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"


def _class_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """The class names in the hub's metadata, of a label or of a list of labels; None where there are none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    known = features if isinstance(features, dict) else {}
    feature = next((known[name] for name in LABEL_COLUMNS if name in known), None)
    while isinstance(feature, list) and feature:
        feature = feature[0]
    while isinstance(feature, dict) and "names" not in feature and "feature" in feature:
        feature = feature["feature"]
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names)) if names and isinstance(names, (list, dict)) else None
