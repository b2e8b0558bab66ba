"""A folder of images, one sub-folder per class, with or without train/ and val/ above the classes."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np

from biggan.data.ids import keys_of
from biggan.data.labels import Labels
from biggan.data.notes import note_of_data
from biggan.data.sources.encoded import Split
from biggan.data.sources.junk import (
    IMAGE_ENDINGS,
    TABLES,
    by_ending,
    is_image_name,
    is_junk_folder,
    say_left_out,
)
from biggan.data.sources.walk import walk
from biggan.errors import UserError

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation", "test")
ONLY_CLASS = "images"
"""The class of images that have none."""


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

    Every file below a class's folder is taken for an image, but for names that begin with a dot or end as no image's
    do. Images without folders are one class. What is left out is noted. Raises `UserError` for a folder without images,
    for a class without images, and for a class that only `val/` has.
    """
    folders = {child.name.lower(): child for child in _subfolders(path)}
    train = next((folders[name] for name in TRAIN_NAMES if name in folders and _has_images(folders[name])), None)
    if train is None:
        _check_split_names(path, folders)
        split, classes = _read_split(path, None)
        return split, None, classes
    split, classes = _read_split(train, None)
    found = [folders[name] for name in VAL_NAMES if name in folders]
    for unused in found[1:]:
        note_of_data(f"{unused} is not used: {found[0]} is the validation split")
    for name, folder in folders.items():
        if name not in (*TRAIN_NAMES, *VAL_NAMES):
            note_of_data(f"{folder} is not used: it is beside {train}")
    return split, _read_split(found[0], classes)[0] if found else None, classes


def _check_split_names(path: Path, folders: dict[str, Path]) -> None:
    """Folders named as splits are classes where there is no training split: noted, or refused if there is no other."""
    splits = [folder for name, folder in folders.items() if name in VAL_NAMES]
    if splits and len(splits) == len(folders):
        raise UserError(
            f"{path} has {' and '.join(folder.name for folder in splits)} and no train folder. Put the training images "
            f"into {path / TRAIN_NAMES[0]}, or give {splits[0]} to train on that."
        )
    for folder in splits:
        note_of_data(f"{folder} is a class: there is no train folder beside it, which would make it a split")


def _has_images(path: Path) -> bool:
    """Whether a split's folder has classes, or images without classes."""
    return bool(_subfolders(path) or _loose_images(path))


def _loose_images(path: Path) -> list[str]:
    """The images directly in a folder, by name."""
    try:
        names = sorted(child.name for child in path.iterdir() if child.is_file() and not child.name.startswith("."))
    except OSError:
        return []
    return [name for name in names if PurePath(name).suffix.lower() in IMAGE_ENDINGS]


def _read_split(path: Path, classes: tuple[str, ...] | None) -> tuple[Split, tuple[str, ...]]:
    """One split; `classes` are those of the training split, which another one shares."""
    found = _folders_by_class(path)
    loose = _loose_images(path)
    if not found and loose:
        return _one_class(path, classes)
    if loose:
        note_of_data(f"{path}: left out {len(loose)} images beside the classes' folders")
    _say_tables(path)
    if not found:
        files = [child.name for child in path.iterdir() if child.is_file() and not child.name.startswith(".")]
        holds = f", but {by_ending(files)}" if files else ""
        raise UserError(
            f"{path} holds no images and has no sub-folders{holds}. An image folder needs one sub-folder per class: "
            f"expected {path}/CLASS/IMAGE or {path}/train/CLASS/IMAGE. Give the folder above the classes, or make them."
        )
    if len(found) == 1 and classes is None:
        note_of_data(f"{path} has one folder alone: all images are of one class ({next(iter(found))})")
    known = tuple(folders[0] for folders in found.values()) if classes is None else classes
    if unknown := sorted(set(found) - {_composed(name) for name in known}):
        raise UserError(
            f"{path} has classes that the training images lack: {', '.join(unknown[:5])}. Expected the same "
            f"sub-folders in both: move these away, or give training images of them."
        )
    names: list[str] = []
    stats: list[tuple[int, int]] = []
    counts = []
    others: list[str] = []
    for name in known:
        before, left_out = len(names), len(others)
        folders = found.get(_composed(name), [])
        for file, facts in (one for folder in folders for one in _files(path / folder, path)):
            if not is_image_name(file):
                others.append(file)
                continue
            names.append(os.path.relpath(file, path))
            stats.append(facts)
        counts.append(len(names) - before)
        if classes is None and counts[-1] == 0:
            holds = f", but {by_ending(others[left_out:])}" if others[left_out:] else ""
            raise UserError(f"the class folder {path / name} has no images{holds}. Put its images there, or remove it.")
    say_left_out(others, str(path))
    labels = np.repeat(np.arange(len(known)), counts)
    if not names:
        raise UserError(f"{path} has no images of any class. Put images there, or remove the folder.")
    return Split(Files(path, names, np.array(stats, dtype=np.int64)), Labels(labels)), known


def _say_tables(path: Path) -> None:
    """Note files beside the images that may hold labels."""
    try:
        tables = sorted(child.name for child in path.iterdir() if child.suffix.lower() in TABLES and child.is_file())
    except OSError:
        return
    if tables:
        more = f" and {len(tables) - 3} more" if len(tables) > 3 else ""
        note_of_data(f"{path}: not read: {', '.join(tables[:3])}{more} (classes are the names of folders)")


def _folders_by_class(path: Path) -> dict[str, list[str]]:
    """The folders directly in `path` by class, in order. Names that differ only in how Unicode writes an accented
    letter (macOS takes it apart) are one class."""
    found: dict[str, list[str]] = {}
    for child in _subfolders(path):
        found.setdefault(_composed(child.name), []).append(child.name)
    for folders in found.values():
        if len(folders) > 1:
            note_of_data(
                f"{path}: {len(folders)} folders named {folders[0]} are one class; their names differ in bytes"
            )
    return found


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _one_class(path: Path, classes: tuple[str, ...] | None) -> tuple[Split, tuple[str, ...]]:
    """The images directly in a folder, as one class."""
    known = classes or (ONLY_CLASS,)
    if len(known) > 1:
        raise UserError(
            f"{path} has images without classes, and the training images have {len(known)} classes. Put them into "
            f"folders of these classes, or move {path.name} away: a part is then held out for validation."
        )
    _say_tables(path)
    entries = [entry for entry in os.scandir(path) if entry.is_file() and not entry.name.startswith(".")]
    entries = sorted((entry for entry in entries if is_image_name(entry.name)), key=lambda entry: entry.name)
    stats = np.array([_stat(entry) for entry in entries], dtype=np.int64)
    note_of_data(f"{path} has no folders of classes: its {len(entries)} images are one class ({known[0]})")
    files = Files(path, [entry.name for entry in entries], stats)
    return Split(files, Labels(np.zeros(len(entries), dtype=np.int64))), known


def _subfolders(path: Path) -> list[Path]:
    """The folders directly in `path`, sorted by name; hidden ones and those of thumbnails and leftovers left out."""
    try:
        found = sorted(child for child in path.iterdir() if child.is_dir())
        for child in found:
            if is_junk_folder(child.name) and not child.name.startswith("."):
                note_of_data(f"{child} is left out: it is no class by its name")
        return [child for child in found if not is_junk_folder(child.name)]
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
