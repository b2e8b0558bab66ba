"""What lies at a path, before anything is trained on it: how it is read, counts, sizes, broken files."""

from __future__ import annotations

import io
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from biggan.data.decode import BrokenImage, open_image
from biggan.data.images import Images
from biggan.data.notes import notes_of_data
from biggan.data.prepare.job import open_any
from biggan.data.sources.encoded import EncodedImages
from biggan.data.sources.opening import detect
from biggan.data.sources.packed import is_packed, read_manifest
from biggan.data.sources.preparable import PREPARABLE, preparable_kind
from biggan.errors import UserError

MOST_READ = 10_000
"""Images whose headers are read, unless all are asked for."""
_RESOLUTIONS = (512, 256, 128, 64, 32, 16, 8)


@dataclass
class Inspection:
    """What was found."""

    path: Path
    kind: str
    """In words."""
    is_trained_on: bool
    """Whether training reads it as it is; else it is packed before."""
    classes: tuple[str, ...]
    counts: dict[str, list[int]]
    """Split -> images of each class, by its first label."""
    notes: list[str]
    columns: dict[str, str] = field(default_factory=dict)
    """Those that were given, which the lines that train on it give too."""
    read: int = 0
    """Images that were looked at one by one."""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(Width, height) -> images, of those looked at."""
    modes: Counter[str] = field(default_factory=Counter)
    """Format and mode -> images."""
    broken: list[tuple[str, str]] = field(default_factory=list)
    """Name and reason, of those looked at."""

    def resolution(self) -> int:
        """The largest resolution that half of the images need not be enlarged for."""
        sides = sorted(side for (w, h), count in self.sizes.items() for side in [min(w, h)] * count)
        median = sides[len(sides) // 2] if sides else 32
        return next((one for one in _RESOLUTIONS if one <= median), _RESOLUTIONS[-1])

    def commands(self) -> list[str]:
        """The lines that train on it; none where no image that was looked at can be read."""
        if self.read and not self.sizes:
            return []
        resolution = self.resolution()
        train = f"--model.resolution {resolution}"
        skip = ""
        if "val" not in self.counts and max(self.counts["train"], default=0) < 2:
            train += " --data.no_validation true"
        if self.broken:
            train, skip = f"{train} --data.on_broken skip" if self.is_trained_on else train, " --skip-broken"
        columns = ",".join(f"{name}={column}" for name, column in self.columns.items())
        given = f"--data.columns {shlex.quote(columns)} " if columns else ""
        if self.is_trained_on:
            return [f"biggan-train --data.path {shlex.quote(str(self.path))} {given}{train}"]
        out = shlex.quote(f"{self.path.name.partition('.')[0]}-{resolution}")
        return [
            f"biggan-data prepare {shlex.quote(str(self.path))} --resolution {resolution} --out {out}{skip}",
            f"biggan-train --data.path {out} {train}",
        ]


def inspect_data(
    path: Path, *, every: bool = False, columns: Mapping[str, str] | None = None, max_pixels: int | None = None
) -> Inspection:
    """Look at what lies at `path`, at `every` image or at most `MOST_READ` of them. Writes nothing.

    Raises `UserError` where it is no data that is read here, with what to do.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist. Give the path of a data set.")
    special = preparable_kind(path)
    resolution = read_manifest(path)["resolution"] if special is None and is_packed(path) else 32
    with notes_of_data() as notes:
        train, val, classes = open_any(path, resolution, columns)
    kinds = {
        "folder": "a folder of images by class",
        "parquet": "parquet files",
        "packed": "the output of biggan-data prepare",
    }
    kind = kinds[detect(path)] if special is None else PREPARABLE[special].what
    splits = {"train": train} if val is None else {"train": train, "val": val}
    for images in splits.values():
        images.limit_pixels(max_pixels)
    counts = {name: np.bincount(one.labels, minlength=len(classes)).tolist() for name, one in splits.items()}
    found = Inspection(path, kind, special is None, classes, counts, notes, dict(columns or {}))
    for images in splits.values():
        _look(images, found, every=every)
    return found


def _look(images: Images, found: Inspection, *, every: bool) -> None:
    """Add one split's sizes, modes and broken files."""
    count = len(images)
    places = range(count) if every else np.unique(np.linspace(0, max(count - 1, 0), min(count, MOST_READ)).astype(int))
    for place in places:
        found.read += 1
        index = int(images.indices[place])
        try:
            size, mode = _header(images, index)
        except (BrokenImage, OSError) as error:
            found.broken.append((images.name(index), str(error)))
            continue
        found.sizes[size] += 1
        found.modes[mode] += 1


def _header(images: Images, index: int) -> tuple[tuple[int, int], str]:
    """An image's (width, height), and its format and mode. Raises `BrokenImage` where it is none."""
    if not isinstance(images, EncodedImages):
        height, width = getattr(images, "stored_size", None) or images.load(index).shape[:2]
        return (width, height), "uint8"
    data = images.pictures.read(index)
    try:
        with open_image(io.BytesIO(data), images.max_pixels) as image:
            return image.size, f"{image.format} {image.mode}"
    except BrokenImage:
        raise
    except Exception as error:
        raise BrokenImage(f"not an image ({type(error).__name__})" if data else "empty") from error
