"""Data sets as StyleGAN's dataset_tool writes them: a zip archive or its unpacked tree, with labels in dataset.json."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from biggan.data.decode import BrokenImage
from biggan.data.ids import keys_of
from biggan.data.images import Images
from biggan.data.labels import Labels
from biggan.data.notes import note_of_data
from biggan.data.sources.arrays import named_classes
from biggan.data.sources.encoded import EncodedImages, Split
from biggan.data.sources.folder import ONLY_CLASS, Files
from biggan.data.sources.junk import IMAGE_ENDINGS
from biggan.data.sources.preparable import ARCHIVE_FAULTS, STYLEGAN_LABELS, PreparableSource
from biggan.data.sources.walk import walk
from biggan.errors import UserError


class ZippedFiles:
    """Images in a zip archive, which each process opens for itself."""

    def __init__(self, path: Path, names: list[str], facts: bytes) -> None:
        self.path, self.names, self._facts = path, names, facts
        self._archive: tuple[int, zipfile.ZipFile] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """One file. Raises `BrokenImage` where the archive is damaged there."""
        if self._archive is None or self._archive[0] != os.getpid():
            self._archive = os.getpid(), zipfile.ZipFile(self.path)
        try:
            return self._archive[1].read(self.names[index])
        except ARCHIVE_FAULTS as error:
            raise BrokenImage(f"is damaged in the archive: {error}") from error

    def name(self, index: int) -> str:
        """The archive, and the name in it."""
        return f"{self.path}:{self.names[index]}"

    def keys(self) -> np.ndarray:
        """Digests of the names in the archive."""
        return keys_of(self.names)

    def identity(self) -> bytes:
        """Digest of the archive's list of files, with their sizes and checksums."""
        return self._facts

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_archive": None}


def _open_stylegan(path: Path, resolution: int) -> tuple[Images, Images | None, tuple[str, ...]]:
    pictures, content = _of_tree(path) if path.is_dir() else _of_zip(path)
    names: list[str] = pictures.names
    if not names:
        raise UserError(f"{path} has {STYLEGAN_LABELS} and no images. Make it again with dataset_tool.")
    labels = _labels(content, names, f"{path}/{STYLEGAN_LABELS}")
    if labels is None:
        note_of_data(f"{path}/{STYLEGAN_LABELS} has no labels: its {len(names)} images are one class ({ONLY_CLASS})")
        labels = np.zeros(len(names), dtype=np.int64)
    classes = named_classes(None, labels)
    return EncodedImages(Split(pictures, Labels(labels)), resolution), None, classes


def _of_tree(path: Path) -> tuple[Files, Any]:
    found = [entry for entry in walk(path) if Path(entry.name).suffix.lower() in IMAGE_ENDINGS]
    stats = [(facts.st_size, facts.st_mtime_ns) for facts in (entry.stat() for entry in found)]
    names = [os.path.relpath(entry.path, path) for entry in found]
    return Files(path, names, np.array(stats, dtype=np.int64)), _parsed(
        path / STYLEGAN_LABELS, (path / STYLEGAN_LABELS).read_bytes()
    )


def _of_zip(path: Path) -> tuple[ZippedFiles, Any]:
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: record for record in archive.infolist() if not record.is_dir()}
        place = next(name for name in records if re.fullmatch(rf"([^/]+/)?{re.escape(STYLEGAN_LABELS)}", name))
        text = archive.read(place)
    top = place.removesuffix(STYLEGAN_LABELS)
    names = sorted(
        name
        for name in records
        if Path(name).suffix.lower() in IMAGE_ENDINGS and name.startswith(top) and "__MACOSX" not in name
    )
    facts = hashlib.blake2b("\0".join(f"{n} {records[n].file_size} {records[n].CRC}" for n in names).encode())
    pictures = ZippedFiles(path, names, facts.digest())
    content = _parsed(path, text)
    if top and isinstance(content, dict) and isinstance(content.get("labels"), list):
        content = {"labels": [[f"{top}{one[0]}", one[1]] for one in content["labels"] if isinstance(one, list)]}
    return pictures, content


def _parsed(path: Path, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {STYLEGAN_LABELS} is damaged ({error}). Make it again with dataset_tool.") from error


def _labels(content: Any, names: list[str], where: str) -> np.ndarray | None:
    """Each image's label; None where there are none. Raises `UserError` for labels that are not one a name."""
    listed = content.get("labels") if isinstance(content, dict) else None
    if not listed:
        return None
    try:
        by_name = {str(name).replace("\\", "/"): label for name, label in listed}
        if not all(type(label) is int and label >= 0 for label in by_name.values()):
            raise ValueError("a label is no whole number from 0")
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} has labels that are not [name, class number] ({error}).") from error
    places = [name.replace(os.sep, "/") for name in names]
    missing = [name for name in places if name not in by_name]
    if missing:
        raise UserError(f"{where} has no label for {len(missing)} of {len(places)} images, such as {missing[0]}.")
    if unused := len(by_name) - len(places):
        note_of_data(f"{where} has labels for {unused} images that are not there")
    return np.array([by_name[name] for name in places], dtype=np.int64)


STYLEGAN = PreparableSource("a data set of StyleGAN's dataset_tool", _open_stylegan)
"""A zip archive or a folder with dataset.json."""
