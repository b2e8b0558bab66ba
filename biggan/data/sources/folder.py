"""A folder of images, one sub-folder per class, with or without train/ and val/ above the classes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from biggan.data.ids import keys_of
from biggan.data.labels import Labels
from biggan.data.sources.encoded import Split
from biggan.data.sources.walk import walk
from biggan.errors import UserError

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation", "test")


class Files:
    """Image files below a root; `stats` (N, 2) are their sizes and times of change."""

    def __init__(self, root: Path, names: list[str], stats: np.ndarray) -> None:
        self.root, self.names, self.stats = root, names, stats

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """The whole file."""
        return (self.root / self.names[index]).read_bytes()

    def name(self, index: int) -> str:
        """Its path."""
        return str(self.root / self.names[index])

    def keys(self) -> np.ndarray:
        """Digests of the paths below the root."""
        return keys_of(name.replace(os.sep, "/") for name in self.names)

    def identity(self) -> bytes:
        """Digest of the relative paths, the sizes and the times of change."""
        found = hashlib.blake2b("\0".join(self.names).encode(errors="surrogateescape"))
        found.update(self.stats.tobytes())
        return found.digest()


def open_folder(path: Path) -> tuple[Split, Split | None, tuple[str, ...]]:
    """The splits of an image folder (the second None where it has one only), and the classes, sorted by name.

    Every file below a class's folder is taken for an image, names that begin with a dot excepted. Raises
    `UserError` for a folder without classes, for a class without images, and for a class that only `val/` has.
    """
    folders = {child.name.lower(): child for child in _subfolders(path)}
    train = next((folders[name] for name in TRAIN_NAMES if name in folders and _subfolders(folders[name])), None)
    if train is None:
        split, classes = _read_split(path, None)
        return split, None, classes
    split, classes = _read_split(train, None)
    val = next((folders[name] for name in VAL_NAMES if name in folders), None)
    return split, None if val is None else _read_split(val, classes)[0], classes


def _read_split(path: Path, classes: tuple[str, ...] | None) -> tuple[Split, tuple[str, ...]]:
    """One split; `classes` are those of the training split, which another one shares."""
    found = [child.name for child in _subfolders(path)]
    if not found:
        raise UserError(
            f"{path} has no sub-folders, but an image folder needs one sub-folder per class: expected "
            f"{path}/CLASS/IMAGE or {path}/train/CLASS/IMAGE. Give the folder above the classes, or make them."
        )
    known = tuple(found) if classes is None else classes
    if unknown := sorted(set(found) - set(known)):
        raise UserError(
            f"{path} has classes that the training images lack: {', '.join(unknown[:5])}. Expected the same "
            f"sub-folders in both."
        )
    names: list[str] = []
    stats: list[tuple[int, int]] = []
    counts = []
    for name in known:
        before = len(names)
        for file, facts in _files(path / name, path) if name in found else ():
            names.append(os.path.relpath(file, path))
            stats.append(facts)
        counts.append(len(names) - before)
        if classes is None and counts[-1] == 0:
            raise UserError(f"the class folder {path / name} has no images. Put its images there, or remove it.")
    labels = np.repeat(np.arange(len(known)), counts)
    if not names:
        raise UserError(f"{path} has no images of any class. Put images there, or remove the folder.")
    return Split(Files(path, names, np.array(stats, dtype=np.int64)), Labels(labels)), known


def _subfolders(path: Path) -> list[Path]:
    """The folders directly in `path`, sorted by name, hidden ones left out."""
    try:
        return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read the folder {path}: {error.strerror}. Give a readable --data.path.") from error


def _files(path: Path, root: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Files at any depth below a class's folder, with their sizes in bytes and times of change."""
    for entry in walk(path, above=(root,)):
        yield entry.path, _stat(entry)


def _stat(entry: os.DirEntry[str]) -> tuple[int, int]:
    """Zeros for a file that cannot be examined, such as a dangling link: reading it will raise the error."""
    try:
        found = entry.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
