"""Writing files so that a kill or a power cut leaves the old contents or the new ones, never a part.

Only this module renames files and flushes them to disk.
"""

from __future__ import annotations

import errno
import glob
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; afterwards that file is `path`, and on the disk.

    The temporary file, `.NAME.PID.tmp`, exists already and is empty. It is removed where the body raises, and `path`
    is then as it was. After a kill it stays until the next call for `path`. The file gets the permissions that a new
    file has here, whatever wrote it. Without `durable` a power cut may leave an empty file, and a kill still leaves
    the old one or the new one: for thousands of small files, of which none matters.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if durable:
        _remove_abandoned(path)
    try:
        with _held(temporary) as mode:
            yield temporary
            if os.stat(temporary).st_mode != mode:  # some libraries make a file its owner's alone
                os.chmod(temporary, mode)
            if durable:
                sync(temporary)
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


@contextmanager
def _held(temporary: Path) -> Iterator[int]:
    """Make an empty file, locked for the time of the body, which is how others see that it is being written."""
    while True:
        with open(temporary, "wb") as file:
            _locked(file.fileno(), wait=True)
            found = os.fstat(file.fileno())
            if found.st_nlink:  # else another process took it for abandoned before it was locked
                yield found.st_mode
                return


def _locked(descriptor: int, *, wait: bool) -> bool:
    """Lock an open file; whether that could be done. Where the file system has no locks it cannot."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of `path` that killed processes left: those that nobody holds."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError), open(left, "rb") as file:
            if _locked(file.fileno(), wait=False):
                left.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file, see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole file as UTF-8, see `replacing`."""
    write_bytes(path, text.encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a whole safetensors file, see `replacing`. Raises `OSError`, with its number, where the system refuses."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with replacing(path) as temporary:
            save_file(dict(tensors), temporary, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))  # the library gives it in words alone
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number) if found else str(error), str(path)) from error


def append_line(path: Path, line: str) -> None:
    """Add one line to a file, on the disk when this returns. An earlier line torn by a kill stays on its own line."""
    with open(path, "ab+") as file:
        if file.tell() and not _ends_a_line(file):
            line = f"\n{line}"
        file.write(f"{line}\n".encode())
        flush(file)


def _ends_a_line(file: IO[bytes]) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def flush(file: IO[Any]) -> None:
    """Flush an open file to disk before continuing."""
    file.flush()
    os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Flush the contents of a file or a folder to disk before continuing."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial(folder: Path, name: str = "*") -> None:
    """Remove the temporary files that killed processes left of the file `name`, or of any. Nobody may be writing."""
    for left in folder.glob(f".{name}.*.tmp"):
        left.unlink(missing_ok=True)


def is_unused(folder: Path) -> bool:
    """Whether a folder does not exist, or holds nothing but temporary files that a killed process may have left."""
    return not folder.exists() or all(fnmatch(one.name, ".*.tmp") for one in folder.iterdir())


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; where the body raises, those that were made and hold nothing are removed."""
    missing = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for one in missing:
            with suppress(OSError):
                one.rmdir()
        raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, or none of them: where the last one has a name that cannot be (`OSError`)."""
    with new_folder(folder):
        pass


def move(source: Path, target: Path) -> None:
    """Rename a file, or a folder that is finished, on the disk when this returns.

    A file or an empty folder at `target` is replaced. Raises `OSError` where a folder with contents is there.
    """
    os.replace(source, target)
    sync(target.parent)


PROBE_BYTES = 2**16


def check_writable(folder: Path, size: int = PROBE_BYTES) -> None:
    """Raise `OSError` where a file of `size` bytes could not be written into `folder`: before work for hours begins.

    A folder that does not exist yet is not made; the nearest one above it that exists is tried. Nothing is left there.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    probe = folder / f".probe.{os.getpid()}.tmp"
    _remove_abandoned(folder / "probe")
    try:
        with open(probe, "wb") as file:
            _locked(file.fileno(), wait=False)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
            else:
                file.write(bytes(size))
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
