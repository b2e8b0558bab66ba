"""Prepared data: uint8 memory maps that training reads without decoding anything.

DIR/manifest.json               what is here: resolution, classes, counts, digests, where it came from
DIR/images.npy                  (N, R, R, 3) uint8, for data without splits
DIR/labels.npy                  (N,) int64: each image's label, or the first of several
DIR/label_lists.npz             only where images have several labels: values (M,), starts (N + 1,)
DIR/origins.npy                 (N,) of `biggan.data.ids.IMAGE_ID`: each image's id in the source
DIR/train/..., DIR/val/...      the same files each, for data with splits
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from biggan.data.ids import IMAGE_ID
from biggan.data.images import Images
from biggan.data.labels import Labels
from biggan.errors import UserError
from spectra.record.files import replacing

MANIFEST, IMAGES, LABELS, LISTS = "manifest.json", "images.npy", "labels.npy", "label_lists.npz"
IDS = "origins.npy"
SPLITS = ("train", "val")
WHOLE = "."  # the only split of data without splits
_FORMAT = 2
REMAKE = "Run biggan-data prepare again."


class PackedImages(Images):
    """A memory map of images, opened by each process for itself."""

    def __init__(self, path: Path, labels: Labels, ids: np.ndarray) -> None:
        super().__init__(np.arange(len(labels)), labels, ids)
        self.path = path
        self._open()

    def load(self, index: int) -> np.ndarray:
        """A copy of one image."""
        return np.array(self._map[index])

    def load_many(self, indices: np.ndarray) -> np.ndarray:
        """A copy of several."""
        return np.asarray(self._map[indices])

    def _files_identity(self) -> bytes:
        found = os.stat(self.path)
        return f"{self.path} {found.st_size} {found.st_mtime_ns}".encode(errors="surrogateescape")

    def _open(self) -> None:
        self._map = np.load(self.path, mmap_mode="r")

    def __getstate__(self) -> dict[str, Any]:
        # Else a worker that is not forked would be sent every pixel.
        return {name: value for name, value in self.__dict__.items() if name != "_map"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def is_packed(path: Path) -> bool:
    """Whether `path` looks like prepared data, whole or not."""
    return any((path / name).exists() for name in (MANIFEST, IMAGES, *(f"{split}/{IMAGES}" for split in SPLITS)))


def open_packed(path: Path, resolution: int) -> tuple[Images, Images | None, tuple[str, ...]]:
    """The splits of prepared data (the second None where it has one only), and the classes.

    Raises `UserError` where it is of another resolution, or where a file is missing, torn, or not what the manifest
    says.
    """
    manifest = read_manifest(path)
    if manifest["resolution"] != resolution:
        raise UserError(
            f"{path} was prepared at resolution {manifest['resolution']}, but model.resolution is {resolution}. "
            f"Prepare the data again with --resolution {resolution} and another --out, or give --model.resolution "
            f"{manifest['resolution']}."
        )
    classes = tuple(map(str, manifest["classes"]))
    found = {
        name: _open_split(path / name, facts, resolution, len(classes)) for name, facts in manifest["splits"].items()
    }
    return found[WHOLE if WHOLE in found else "train"], found.get("val"), classes


def read_manifest(path: Path) -> dict[str, Any]:
    """What `prepare` wrote about its output. Raises `UserError` where there is nothing whole."""
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text())
        if manifest["format"] != _FORMAT:
            raise UserError(f"{file} is of format {manifest['format']}, and this program reads {_FORMAT}. {REMAKE}")
        _check_fields(manifest)
    except FileNotFoundError as error:
        raise UserError(f"{path} has packed images but no {MANIFEST}, so it is incomplete. {REMAKE}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is torn or not a manifest ({error!r}). {REMAKE}") from error
    return manifest


def _check_fields(manifest: dict[str, Any]) -> None:
    """Raise `KeyError`, `TypeError` or `ValueError` where a manifest lacks what is read of it."""
    for name, kind in {"resolution": int, "classes": list, "splits": dict, "source": str, "identity": str}.items():
        if not isinstance(manifest[name], kind):
            raise TypeError(f"{name} is not {kind.__name__}")
    manifest["options"], manifest["skipped"]
    splits = manifest["splits"]
    if set(splits) not in ({WHOLE}, set(SPLITS)):
        raise ValueError(f"splits are {', '.join(splits) or 'none'}, expected {WHOLE}, or {' and '.join(SPLITS)}")
    for facts in splits.values():
        if not isinstance(facts["images"], int) or not {IMAGES, LABELS, IDS} <= set(facts["digests"]):
            raise ValueError("a split lacks its count or files")


def check(path: Path) -> list[str]:
    """Read every byte of prepared data and compare it with the manifest's digests; what is wrong, file by file."""
    return [
        f"{path / name / file}: {'missing' if not (path / name / file).exists() else 'its bytes have changed'}"
        for name, facts in read_manifest(path)["splits"].items()
        for file, digest in facts["digests"].items()
        if not (path / name / file).exists() or digest_of(path / name / file) != digest
    ]


def digest_of(path: Path) -> str:
    """BLAKE2b of a file, 128 bits, in hexadecimal."""
    found = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(2**24):
            found.update(block)
    return found.hexdigest()


def save_facts(folder: Path, labels: Labels, ids: np.ndarray) -> list[str]:
    """Write a split's labels and image ids; return the files' names."""
    _save(folder / LABELS, lambda file: np.save(file, labels.first))
    _save(folder / IDS, lambda file: np.save(file, ids))
    values, starts = labels.values, labels.starts
    if values is None or starts is None:  # one label an image
        return [LABELS, IDS]
    _save(folder / LISTS, lambda file: np.savez(file, values=values, starts=starts))
    return [LABELS, IDS, LISTS]


def _save(path: Path, write: Any) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        write(file)


def _open_split(folder: Path, facts: dict[str, Any], resolution: int, classes: int) -> PackedImages:
    """One split, checked against its entry in the manifest."""
    count = facts["images"]
    labels, ids = _load(folder / LABELS), _load(folder / IDS)
    images = _load(folder / IMAGES, mmap_mode="r")
    for name, array, shape, kind in (
        (IMAGES, images, (count, resolution, resolution, 3), np.uint8),
        (LABELS, labels, (count,), np.int64),
        (IDS, ids, (count,), IMAGE_ID),
    ):
        if array.shape != shape or array.dtype != kind:
            raise UserError(
                f"{folder / name} holds {array.dtype} {array.shape}, but the manifest lists {np.dtype(kind)} {shape}: "
                f"it was changed. {REMAKE}"
            )
    found = Labels(labels)
    if LISTS in facts["digests"]:
        lists = _load(folder / LISTS)
        try:
            found = Labels.from_lists(lists["values"], lists["starts"])
        except (KeyError, IndexError, ValueError, OSError) as error:
            raise UserError(f"{folder / LISTS} is torn or changed ({error}). {REMAKE}") from error
        if len(found) != count:
            raise UserError(f"{folder / LISTS} has labels of {len(found)} images, expected {count}. {REMAKE}")
    values = found.flat()[0]
    if len(values) and not 0 <= values.min() <= values.max() < classes:
        raise UserError(
            f"{folder / LABELS} has labels from {values.min()} to {values.max()}, out of range: expected 0 to "
            f"{classes - 1}. {REMAKE}"
        )
    return PackedImages(folder / IMAGES, found, ids)


def _load(path: Path, mmap_mode: Any = None) -> Any:
    try:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing. {REMAKE}") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is torn ({error}). {REMAKE}") from error
