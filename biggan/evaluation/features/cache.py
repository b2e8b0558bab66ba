"""The cache of trained feature networks and of moments of real images.

The folder is that of `BIGGAN_CACHE`, or `~/.cache/biggan`. Every file is a safetensors file named by a digest of its
inputs and written atomically, so several runs can share it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from biggan.errors import UserError
from biggan.run.checkpoint import digest
from spectra.record.files import write_tensors


def cache_folder() -> Path:
    """The folder, which need not exist yet."""
    given = os.environ.get("BIGGAN_CACHE")
    if given:
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "biggan"
    except RuntimeError as error:
        raise UserError(
            "this user has no home directory to keep trained classifiers in. Give a folder: BIGGAN_CACHE=DIR."
        ) from error


def key(*parts: object) -> str:
    """A name for a result that depends only on `parts`."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part if isinstance(part, bytes) else repr(part).encode())
        found.update(b"\0")
    return found.hexdigest()


def load_cached(name: str) -> dict[str, Tensor] | None:
    """The tensors kept under `name`; None where there are none, or where the file does not verify."""
    from safetensors import SafetensorError, safe_open

    path = cache_folder() / f"{name}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError):
        return None
    return tensors if digest(tensors, metadata) == metadata.get("digest") else None


def store_cached(name: str, tensors: Mapping[str, Tensor]) -> None:
    """Keep `tensors` under `name`. Raises `UserError` where the folder cannot be written."""
    whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    metadata = {"name": name}
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / f"{name}.safetensors", whole, metadata | {"digest": digest(whole, metadata)})
    except OSError as error:
        raise UserError(
            f"cannot write to the cache folder {folder}: {error}. Free space, or set BIGGAN_CACHE to another folder."
        ) from error
