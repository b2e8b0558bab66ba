"""The cache of trained feature networks and of moments of real images.

The folder is that of `BIGGAN_CACHE`, or `~/.cache/biggan`. Every file is a safetensors file, named by a digest of what
it was made from and written atomically, so several runs can share it. What it was made from also stands in it, under
its own digest: a file that was made from something else, or by other code, is not used under this name. That protects
against mistakes. A digest is no signature, so against others protects this alone: a file that belongs to another user,
or that others may write, is refused unless the call trusts the cache (`--trust-cache`).
"""

from __future__ import annotations

import hashlib
import inspect
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import Tensor

from biggan.errors import UserError
from biggan.permissions import trusts_cache
from biggan.run.checkpoint import digest
from spectra.record.files import check_writable, write_tensors
from spectra.version import package_version


@dataclass(frozen=True)
class CacheEntry:
    """A result by what it was made from."""

    kind: str
    facts: Mapping[str, str]
    """The digest of the code, the digest of the data, and the settings."""

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return f"{self.kind}-{key(*sorted(self.facts.items()))}"

    @property
    def path(self) -> Path:
        """The file."""
        return cache_folder() / f"{self.name}.safetensors"


def cache_entry(kind: str, code: tuple[ModuleType, ...], data: bytes, **settings: object) -> CacheEntry:
    """The entry of what `code` makes from the data of the digest `data` under these settings."""
    facts = {name: repr(value) for name, value in settings.items()}
    return CacheEntry(kind, {"kind": kind, "code": _version(code), "data": data.hex(), **facts})


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


def _version(code: tuple[ModuleType, ...]) -> str:
    """Of the package's version and the text of the modules that decide the numbers."""
    return key(package_version(), *(inspect.getsource(module) for module in code))


def load_cached(entry: CacheEntry, fits: Callable[[Mapping[str, Tensor]], bool]) -> dict[str, Tensor] | None:
    """The tensors kept under `entry`; None where there are none, and where the file is damaged, was made from something
    else, or holds what does not fit (`fits`).

    Raises `UserError` for a file of another user, or one that others may write, unless the call trusts the cache.
    """
    from safetensors import SafetensorError, safe_open

    try:
        descriptor = os.open(entry.path, os.O_RDONLY)
    except OSError:
        return None
    try:
        check_owner(entry.path, os.fstat(descriptor))
        # The file that was just looked at, whatever its name means by now.
        opened = f"/proc/self/fd/{descriptor}" if os.path.exists("/proc/self/fd") else entry.path
        with safe_open(opened, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return None
    finally:
        os.close(descriptor)
    made_from = {name: value for name, value in metadata.items() if name != "digest"}
    if made_from != entry.facts or digest(tensors, metadata) != metadata.get("digest"):
        return None
    return tensors if fits(tensors) else None


def check_owner(path: Path, found: os.stat_result) -> None:
    """Raise `UserError` for a file of another user, or one that others may write, unless the call trusts the cache."""
    if trusts_cache() or not hasattr(os, "getuid"):
        return
    if found.st_uid != os.getuid():
        whose = f"belongs to user {_user(found.st_uid)}, and this is {_user(os.getuid())}"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        whose = "may be written by others"
    else:
        return
    raise UserError(
        f"{path} {whose}: whoever made it decides the scores that are computed with it. Give --trust-cache to use it, "
        f"or set BIGGAN_CACHE to a folder of your own."
    )


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def check_cache(size: int = 0) -> None:
    """Raise `UserError` where `size` bytes and some could not be written to the cache now. Nothing is left there."""
    folder = cache_folder()
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{folder} is not a folder")
        check_writable(folder, size + 2**16)
    except OSError as error:
        raise _refused(folder, error) from error


def store_cached(entry: CacheEntry, tensors: Mapping[str, Tensor]) -> None:
    """Keep `tensors` under `entry`. Raises `UserError` where the folder cannot be written.

    Whoever may read the folder may read the file, so a folder is shared by its permissions; its owner alone may write.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = dict(entry.facts)
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(entry.path, whole, metadata | {"digest": digest(whole, metadata)})
    except OSError as error:
        raise _refused(folder, error) from error
    with suppress(OSError):  # it is kept; whether it is shared is not worth a failure
        readers = folder.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
        entry.path.chmod(stat.S_IRUSR | stat.S_IWUSR | readers)


def _refused(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write to the cache folder {folder}: {error}. Free space, or set BIGGAN_CACHE to another folder."
    )
