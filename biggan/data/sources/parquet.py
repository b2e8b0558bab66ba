"""Parquet files as on the Hugging Face hub: a column of structs with an image's `bytes`, and one of labels.

Only labels are read when the source is opened, and, of rows without bytes, the paths of their files. Images are read
by row group when they are drawn; the newest groups stay in memory up to `CACHE_BYTES`, which holds all of a small one.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from biggan.data.decode import BrokenImage
from biggan.data.ids import keys_of, numbered
from biggan.data.labels import Labels
from biggan.data.notes import note_of_data
from biggan.data.sources.encoded import Split
from biggan.data.sources.folder import ONLY_CLASS
from biggan.data.sources.hub_files import by_split
from biggan.data.sources.parquet_columns import (
    IMAGE_COLUMNS,
    MOST_CLASSES,
    FileLabels,
    agreed_columns,
    class_names,
    image_leaves,
    labels_of,
    no_labels,
    numbered_classes,
)
from biggan.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

CACHE_BYTES = 512 * 2**20  # encoded images held by one process


class Rows:
    """The images of several parquet files, one after another."""

    def __init__(
        self,
        paths: list[Path],
        root: Path,
        column: str,
        groups: list[tuple[int, int, int]],
        beside: Mapping[int, str] | None = None,
    ) -> None:
        """`groups` lists the row groups of all files in order: (file, group in it, rows); `root` is above all files.
        `beside` has the rows without bytes: their files, by paths below the root."""
        self.paths, self.root, self.column, self.groups, self.beside = paths, root, column, groups, beside or {}
        self.starts = np.concatenate([[0], np.cumsum([rows for *_, rows in groups])]).astype(np.int64)
        self._forget()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, index: int) -> bytes:
        """An image's bytes. Raises `BrokenImage` where the row has none, nor its file."""
        if index in self.beside:
            try:
                return (self.root / self.beside[index]).read_bytes()
            except FileNotFoundError as error:
                raise BrokenImage("the row has no image bytes, and its file is not there") from error
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
        beside = f" ({self.beside[index]})" if index in self.beside else ""
        return f"row {index - int(self.starts[before])} of {self.paths[file]}{beside}"

    def keys(self) -> np.ndarray:
        """Digests of the files' paths below the root and the rows' numbers."""
        rows = np.zeros(len(self.paths), dtype=np.int64)
        for file, _, count in self.groups:
            rows[file] += count
        files = keys_of(self._below_root())
        return np.concatenate([numbered(key, np.arange(count)) for key, count in zip(files, rows, strict=True)])

    def identity(self) -> bytes:
        """Digest of the files' names, sizes, times of change and numbers of rows, and of a column of another name."""
        parts = [_state(path, name) for path, name in zip(self.paths, self._below_root(), strict=True)]
        parts += [_state(self.root / name, name) for name in self.beside.values()]
        parts += [] if self.column in IMAGE_COLUMNS else [self.column]
        return hashlib.blake2b("\0".join([*parts, *map(str, self.groups)]).encode(errors="surrogateescape")).digest()

    def _below_root(self) -> list[str]:
        return [path.relative_to(self.root).as_posix() for path in self.paths]

    def _group(self, number: int) -> pa.ChunkedArray:
        """The images' bytes of one row group, from the cache or from its file."""
        if self._process != os.getpid():  # a forked worker must not share its parent's open files
            self._forget()
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        file, group, _ = self.groups[number]
        if file not in self._files:
            self._files[file] = _open_file(self.paths[file])
        # Whole groups are the smallest unit that can be read; the path beside the bytes is left alone.
        leaf, _ = image_leaves(self._files[file].schema_arrow, self.column)
        assert leaf is not None  # else all rows are in `beside`
        self._cache[number] = _leaf(self._files[file], group, leaf, self.paths[file])
        self._held += self._cache[number].nbytes
        while self._held > CACHE_BYTES and len(self._cache) > 1:
            self._held -= self._cache.popitem(last=False)[1].nbytes
        return self._cache[number]

    def _forget(self) -> None:
        self._process, self._held = os.getpid(), 0
        self._cache: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._files: dict[int, pq.ParquetFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("paths", "root", "column", "groups", "beside")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def open_parquet(path: Path, columns: Mapping[str, str] | None = None) -> tuple[Split, Split | None, tuple[str, ...]]:
    """The splits of a parquet file or a folder of them (the second None where it has one only), and the classes.

    `columns` names the columns of `image` and `label` where they have unusual names. Classes are named by the hub's
    metadata where the files have it, by the labels where these are text, else by their numbers. Raises `UserError` for
    files or columns that are not there, for files that disagree on the classes, and for labels out of range.
    """
    train, val = by_split(path)
    schemas = {file: _open_file(file).schema_arrow for file in [*train, *val]}
    chosen = agreed_columns(schemas, columns or {})
    names = _agreed_names(schemas, chosen.label)
    read = {file: _read_labels(file, chosen.label) for file in schemas}
    numbers, names = numbered_classes(list(read.values()), names)
    numbers_of = dict(zip(read, numbers, strict=True))
    if names is None:
        most = max((int(part.max()) for part in numbers if len(part)), default=0)
        if most >= MOST_CLASSES:
            raise UserError(
                f"{path} has the label {most}, expected class numbers below {MOST_CLASSES}. Fix its labels."
            )
        names = (ONLY_CLASS,) if chosen.label is None else tuple(str(number) for number in range(most + 1))
    root = path.parent if path.is_file() else path

    def split(files: list[Path]) -> Split:
        labels = Labels.from_lists(
            np.concatenate([numbers_of[file] for file in files]),
            np.concatenate([[0], np.cumsum(np.concatenate([read[file].counts for file in files]))]),
        )
        return Split(_rows(files, root, chosen.image), labels)

    return split(train), split(val) if val else None, names


def _rows(paths: list[Path], root: Path, image: str) -> Rows:
    """The images of one split."""
    groups: list[tuple[int, int, int]] = []
    beside: dict[int, str] = {}
    before = 0
    for number, path in enumerate(paths):
        file = _open_file(path)
        for group in range(file.num_row_groups):
            for row, name in _files_of_rows(file, group, image, path, root):
                beside[before + row] = name
            groups.append((number, group, file.metadata.row_group(group).num_rows))
            before += groups[-1][2]
    if not before:
        raise UserError(f"{paths[0]} has no rows. Give files with images.")
    if beside:
        note_of_data(f"{root}: {len(beside)} of {before} images are read from the files that their rows name")
        if len(beside) == before and not any((root / name).exists() for name in beside.values()):
            raise UserError(
                f"the rows of {paths[0]} hold no images but the names of files, and none of these is there, "
                f"such as {root / next(iter(beside.values()))}. Put the files there, or choose another column: "
                f"--data.columns image=NAME."
            )
    return Rows(paths, root, image, groups, beside)


def _files_of_rows(file: pq.ParquetFile, group: int, column: str, path: Path, root: Path) -> list[tuple[int, str]]:
    """The rows of a group that have no bytes but name a file: (row, path below the root)."""
    content, name = image_leaves(file.schema_arrow, column)
    facts = file.metadata.row_group(group)
    leaves = {facts.column(n).path_in_schema: facts.column(n).statistics for n in range(facts.num_columns)}
    known = leaves.get(content or "")
    if name is None or (known is not None and known.has_null_count and known.null_count == 0):
        return []
    places = list(range(facts.num_rows))
    if content is not None:
        places = np.flatnonzero(_leaf(file, group, content, path).is_null().to_numpy()).tolist()
    names = _leaf(file, group, name, path).to_pylist() if places else []
    return [(row, _below(names[row], path, root)) for row in places if names[row]]


def _below(name: str, path: Path, root: Path) -> str:
    """A file that a row names, as a path below the root. Raises `UserError` for one outside: what others wrote into a
    data set must not choose which files of this machine are read."""
    place = os.path.normpath(os.path.join(os.path.abspath(path.parent), name))
    for top in (os.path.abspath(root), os.path.realpath(root)):
        if place.startswith(top.rstrip(os.sep) + os.sep) and "\0" not in name:
            return os.path.relpath(place, top)
    raise UserError(
        f"{path} names the file {name!r}, which lies outside of {root}. Only files in the data's folder are read: move "
        f"them there, and give paths from {path.parent}."
    )


def _leaf(file: pq.ParquetFile, group: int, leaf: str, path: Path) -> pa.ChunkedArray:
    """One column of a row group, or one field of a column of structs. What lies beside it is not read."""
    import pyarrow as pa

    try:
        column = file.read_row_group(group, columns=[leaf], use_threads=False).column(0)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read row group {group} of {path}: {error}. Download the file again.") from error
    if leaf in file.schema_arrow.names:
        return column
    return pa.chunked_array([chunk.field(0) for chunk in column.chunks], type=column.type.field(0).type)


def _open_file(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path} as parquet: {error}. Download the file again, or remove it.") from error


def _read_labels(path: Path, column: str | None) -> FileLabels:
    file = _open_file(path)
    if column is None:
        return no_labels(path, file.metadata.num_rows)
    return labels_of(file.read(columns=[column], use_threads=False).column(0).combine_chunks(), path)


def _agreed_names(schemas: Mapping[Path, pa.Schema], label: str | None) -> tuple[str, ...] | None:
    """The class names that all files give, None where none does. Raises `UserError` where two files disagree."""
    found = {path: class_names(schema, label) for path, schema in schemas.items()}
    first, expected = next(iter(found.items()))
    for path, names in found.items():
        if names != expected:
            raise UserError(
                f"{first} and {path} disagree on the classes: {_listed(expected)}, and {_listed(names)}. Expected "
                f"the same names in the same order in all files. Give files of one data set, or fix their metadata."
            )
    return expected


def _listed(names: tuple[str, ...] | None) -> str:
    if names is None:
        return "no names"
    return f"{len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"


def _state(path: Path, name: str) -> str:
    """A file's name, size and time of change; zeros for one that is not there: reading it will say so."""
    try:
        found = path.stat()
    except OSError:
        return f"{name} 0 0"
    return f"{name} {found.st_size} {found.st_mtime_ns}"
