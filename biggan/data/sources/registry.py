"""The data sources by name. A new one is a function that opens it, and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from biggan.registry import Registry

if TYPE_CHECKING:
    from biggan.data.images import Images

    Opened = tuple[Images, Images | None, tuple[str, ...]]


@dataclass(frozen=True)
class DataSource:
    """How images are opened.

    `open(path, resolution)` gives the training images, the validation images where the data has such a split, and the
    classes' names. A source without files comes with its package, and is given an empty path. One whose images and
    labels lie in named columns also has `open_columns(path, resolution, columns)`, for `data.columns`.
    """

    open: Callable[[Path, int], Opened]
    has_files: bool = True
    open_columns: Callable[[Path, int, Mapping[str, str]], Opened] | None = None


SOURCES: Registry[DataSource] = Registry(
    {
        "auto": "biggan.data.sources.opening:AUTO",
        "digits": "biggan.data.sources.opening:DIGITS",
        "folder": "biggan.data.sources.opening:FOLDER",
        "parquet": "biggan.data.sources.opening:PARQUET",
        "packed": "biggan.data.sources.opening:PACKED",
    }
)
"""`data.source`. `auto` is whichever of the others lies at the path."""
