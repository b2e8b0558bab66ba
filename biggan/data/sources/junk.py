"""What lies in folders of images without being one: by its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath

from biggan.data.notes import note_of_data

_NAMES = "jpg jpeg jpe jfif jp2 png apng webp bmp dib gif tif tiff ppm pgm pbm pnm tga ico avif"
IMAGE_ENDINGS = frozenset(f".{name}" for name in _NAMES.split())
_OTHERS = frozenset([".mp4", ".mp3", ".m4v", ".m4a", ".h5", ".7z", ".bz2"])
"""Endings with a digit that are known to be no image's."""
TABLES = frozenset([".csv", ".tsv", ".json", ".jsonl", ".xml", ".txt", ".xlsx"])
"""Endings of what may hold labels, which are not read."""
JUNK_FOLDERS = frozenset({"@eadir", "__macosx", ".ipynb_checkpoints", "lost+found", "$recycle.bin", "#recycle"})
"""Folders of thumbnails and leftovers that storage devices, archives and notebooks make, in lower case."""


def is_junk_folder(name: str) -> bool:
    """Whether a folder of this name holds no images of the data: a hidden one, or one of `JUNK_FOLDERS`."""
    return name.startswith(".") or name.lower() in JUNK_FOLDERS


def is_image_name(name: str) -> bool:
    """Whether a file of this name may be an image: by its ending, or by having none that is known to be something."""
    ending = PurePath(name).suffix.lower()
    return ending in IMAGE_ENDINGS or not ending or not (ending[1:].isalpha() or ending in _OTHERS)


def by_ending(names: Iterable[str]) -> str:
    """How many files there are of each ending, in words: `3 .heic, 1 .json`."""
    found = Counter(PurePath(name).suffix.lower() or name for name in names)
    return ", ".join(f"{count} {ending}" for ending, count in found.most_common(5))


def say_left_out(names: Iterable[str], where: str) -> None:
    """Note the files that are left out because they are no images by their names, by their endings."""
    listed = list(names)
    if listed:
        note_of_data(f"{where}: left out {len(listed)} files that are no images by their names ({by_ending(listed)})")
