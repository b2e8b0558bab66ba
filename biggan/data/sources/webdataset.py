"""Tar shards as webdataset writes them: KEY.jpg (png, webp ...) beside KEY.cls, the class's number."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import numpy as np

from biggan.data.ids import keys_of
from biggan.data.images import Images
from biggan.data.labels import Labels
from biggan.data.notes import note_of_data
from biggan.data.sources.arrays import named_classes
from biggan.data.sources.encoded import EncodedImages, Split
from biggan.data.sources.folder import ONLY_CLASS, TRAIN_NAMES, VAL_NAMES
from biggan.data.sources.junk import IMAGE_ENDINGS
from biggan.data.sources.preparable import PreparableSource
from biggan.errors import UserError

MOST_CLS_BYTES = 100
"""Longer .cls members are no numbers."""


class TarredFiles:
    """Images in uncompressed tar files: where the bytes of each lie."""

    def __init__(self, shards: list[Path], names: list[str], places: np.ndarray) -> None:
        """`places` (N, 3): the number of the shard, the first byte, how many."""
        self.shards, self.names, self.places = shards, names, places

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """One image's bytes."""
        shard, start, size = map(int, self.places[index])
        with self.shards[shard].open("rb") as file:
            file.seek(start)
            return file.read(size)

    def name(self, index: int) -> str:
        """The shard, and the name in it."""
        return f"{self.shards[int(self.places[index, 0])]}:{self.names[index]}"

    def keys(self) -> np.ndarray:
        """Digests of the shards' names and the names in them."""
        return keys_of(f"{self.shards[int(self.places[i, 0])].name}/{name}" for i, name in enumerate(self.names))

    def identity(self) -> bytes:
        """Digest of names, places, sizes and times of the shards."""
        facts = [f"{shard.name} {shard.stat().st_size} {shard.stat().st_mtime_ns}" for shard in self.shards]
        found = hashlib.blake2b("\0".join([*facts, *self.names]).encode(errors="surrogateescape"))
        found.update(self.places.tobytes())
        return found.digest()


def _open_shards(path: Path, resolution: int) -> tuple[Images, Images | None, tuple[str, ...]]:
    shards = [path] if path.is_file() else sorted(path.glob("*.tar"))
    splits = {"train": [shard for shard in shards if not _is_of(shard, VAL_NAMES)]}
    splits["val"] = [shard for shard in shards if _is_of(shard, VAL_NAMES)]
    if not splits["train"]:
        splits = {"train": shards, "val": []}
    found = {name: _read(shards) for name, shards in splits.items() if shards}
    classes = named_classes(None, *(split.labels.first for split in found.values()))
    images = {name: EncodedImages(split, resolution) for name, split in found.items()}
    return images["train"], images.get("val"), classes


def _is_of(shard: Path, words: tuple[str, ...]) -> bool:
    """Whether a shard is of a split, by a word in its name: `imagenet-val-000000.tar`."""
    parts = shard.name.lower().replace("_", "-").replace(".", "-").split("-")
    return any(word in parts for word in words) and not any(word in parts for word in TRAIN_NAMES)


def _read(shards: list[Path]) -> Split:
    """The images of several shards, in order, and their labels."""
    names: list[str] = []
    places: list[tuple[int, int, int]] = []
    labels: list[int | None] = []
    for number, shard in enumerate(shards):
        pictures, classes = _members(shard)
        for key, (name, start, size) in pictures.items():
            names.append(name)
            places.append((number, start, size))
            labels.append(classes.get(key))
    where = str(shards[0] if len(shards) == 1 else shards[0].parent)
    if not names:
        raise UserError(f"{where} holds no images. Expected shards of webdataset: KEY.jpg beside KEY.cls.")
    missing = sum(label is None for label in labels)
    if 0 < missing < len(labels):
        raise UserError(f"{where}: {missing} of {len(labels)} images have no .cls beside them. Write the shards again.")
    if missing:
        note_of_data(
            f"{where} has no .cls files: its {missing} images are one class ({ONLY_CLASS}). If "
            f"its folders are the classes, unpack it and give the folder"
        )
    numbers = np.array([label or 0 for label in labels], dtype=np.int64)
    return Split(TarredFiles(shards, names, np.array(places, dtype=np.int64)), Labels(numbers))


def _members(shard: Path) -> tuple[dict[str, tuple[str, int, int]], dict[str, int]]:
    """Key -> (name, first byte, bytes) of each image, and key -> class. The key is the path up to the name's first dot.

    Raises `UserError` for a damaged file, and for a class that is no whole number.
    """
    pictures: dict[str, tuple[str, int, int]] = {}
    classes: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                folder, _, file = member.name.rpartition("/")
                stem, _, ending = file.partition(".")
                key = f"{folder}/{stem}"
                if not member.isreg() or file.startswith("."):
                    continue
                if f".{ending.lower().rpartition('.')[2]}" in IMAGE_ENDINGS:
                    pictures[key] = member.name, member.offset_data, member.size
                elif ending == "cls" and member.size <= MOST_CLS_BYTES:
                    content = archive.extractfile(member)
                    classes[key] = _number(shard, member.name, b"" if content is None else content.read())
            _check_end(shard, archive.offset)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{shard} is no whole, uncompressed tar file ({error}). Copy or unpack it again.") from error
    return pictures, classes


def _check_end(shard: Path, offset: int) -> None:
    """Raise `TarError` where no block of zeros follows the last member: `tarfile` takes a cut within a header for the
    end."""
    with shard.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it was cut off")


def _number(shard: Path, name: str, text: bytes) -> int:
    if not text.strip().isdigit():
        raise UserError(f"{shard}:{name} is {text[:20]!r}, expected the class's number, from 0.")
    return int(text)


WEBDATASET = PreparableSource("tar shards of webdataset", _open_shards)
"""A tar file, or a folder of them."""
