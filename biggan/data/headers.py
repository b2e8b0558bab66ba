"""Reading the headers of all image files of a run before it starts, and of those alone that were changed since.

A header says that a file is an image and of what size. That its pixels are whole is known only when it is decoded.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import torch

from biggan.data.images import Images, Source
from biggan.data.sources.encoded import EncodedImages
from biggan.data.sources.folder import Files
from biggan.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from biggan.config import DataConfig
    from biggan.evaluation.features.cache import CacheEntry

_AT_A_TIME = 512
_THREADS = 8  # they wait for the disk
_SILENT_SECONDS, _EVERY_SECONDS = 3.0, 10.0
_NAMED = 5


def report_on_stderr(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def check_headers(
    source: Source, config: DataConfig, report: Callable[[str], None] = report_on_stderr
) -> dict[str, str]:
    """Read the headers of the source's image files, where `data.check` asks for it; the broken ones, name -> why.

    Raises `UserError` for broken ones unless `data.on_broken` is skip, where `report` says how many there are.
    """
    if config.check != "headers":
        return {}
    found: dict[str, str] = {}
    for images in (source.train, source.val):
        if isinstance(images, EncodedImages) and isinstance(images.pictures, Files):
            found |= _broken_of(images, images.pictures, report, config.max_pixels)
    if not found:
        return found
    listed = "; ".join(f"{name}: {why}" for name, why in itertools.islice(found.items(), _NAMED))
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    if config.on_broken == "skip":
        report(f"{len(found)} images are broken, and others of their class will take their place: {listed}{more}")
        return found
    is_are = "image is" if len(found) == 1 else "images are"
    raise UserError(
        f"{len(found)} {is_are} broken: {listed}{more}. Fix or remove them, give --data.on_broken skip, or "
        f"--data.check none to begin without looking."
    )


def _broken_of(images: Images, files: Files, report: Callable[[str], None], max_pixels: int | None) -> dict[str, str]:
    """The broken files among a split's images. Those found whole before, and not changed since, are not read again."""
    from biggan.evaluation.features import cache

    entry = _entry(files, max_pixels)
    states = np.column_stack([files.keys().view(np.int64), files.stats])[images.indices]
    before: Mapping[str, Tensor] | None = None
    with suppress(UserError):  # a file of another user: everything is read
        before = cache.load_cached(entry, _is_list)
    known = set() if before is None else set(map(tuple, before["whole"].tolist()))
    unknown = [int(n) for n, state in zip(images.indices, states.tolist(), strict=True) if tuple(state) not in known]
    if not unknown:
        return {}
    found = dict(_read_all(files, unknown, report, max_pixels))
    bad = set(found)
    whole = [state for n, state in zip(images.indices.tolist(), states.tolist(), strict=True) if n not in bad]
    known |= set(map(tuple, whole))
    with suppress(UserError):  # what cannot be kept is read again
        cache.check_cache(24 * len(known))
        cache.store_cached(entry, {"whole": torch.tensor(sorted(known), dtype=torch.int64).reshape(-1, 3)})
    return {files.name(n): why for n, why in found.items()}


def _entry(files: Files, max_pixels: int | None) -> CacheEntry:
    from biggan.evaluation.features import cache

    return cache.cache_entry(
        "headers", (sys.modules[__name__],), b"", root=str(files.root.resolve()), most=max_pixels or 0
    )


def _is_list(found: Mapping[str, Tensor]) -> bool:
    return set(found) == {"whole"} and found["whole"].ndim == 2 and found["whole"].shape[1] == 3


def _read_all(
    files: Files, numbers: list[int], report: Callable[[str], None], max_pixels: int | None
) -> Iterator[tuple[int, str]]:
    """The broken ones among the files of these numbers, each with why. Says how far it is where it takes long."""
    from PIL import Image

    Image.preinit()  # the formats' list is not made by several threads at once
    began = said = time.monotonic()
    with ThreadPoolExecutor(_THREADS) as pool:
        for first in range(0, len(numbers), _AT_A_TIME):
            part = numbers[first : first + _AT_A_TIME]
            for number, why in zip(part, pool.map(lambda n: _why_broken(files, n, max_pixels), part), strict=True):
                if why is not None:
                    yield number, why
            now = time.monotonic()
            if now - began > _SILENT_SECONDS and now - said > _EVERY_SECONDS:
                said = now
                done = f"{first + len(part):,} of {len(numbers):,}"
                report(f"checked the headers of {done} images (--data.check none omits this)")


def _why_broken(files: Files, number: int, max_pixels: int | None) -> str | None:
    """Why a file is no image by its header; None: it is one."""
    from biggan.data.decode import open_image, why_broken

    head = b""
    try:
        with open(files.name(number), "rb") as file:
            head = file.read(32)
            file.seek(0)
            with open_image(file, max_pixels):
                return None
    except OSError as error:
        return f"cannot be read: {error.strerror}" if error.strerror else why_broken(error, head)
    except Exception as error:  # Pillow's plugins raise every kind of error on damaged files
        return why_broken(error, head)
