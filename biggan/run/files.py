"""Locks, links and free names. `spectra.record.files` writes files atomically."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from biggan.errors import UserError
from spectra.record.files import check_writable, move, sync, write_bytes

_held: set[Lock] = set()

LOCK = ".lock"
"""The name of a folder's lock."""


class Lock:
    """Locks out other processes until `close`, or the end of this process.

    Args:
        path: the file that is locked; it is made where there is none.
        wait: wait until no other process holds it, instead of raising.
        remove: delete the file at `close`.

    Raises:
        BlockingIOError: another process, or another lock of this one, holds it.
        OSError: the file cannot be made.

    Forked processes, such as a loader's, hold none of their parent's locks: they may outlive a killed parent.
    """

    def __init__(self, path: Path, *, wait: bool = False, remove: bool = False) -> None:
        self.path, self._remove = path, remove
        while (file := _locked(path, wait)) is None:
            pass
        self._file = file
        _held.add(self)

    def close(self) -> None:
        """Release the lock."""
        if self._file.closed:
            return
        if self._remove:
            self.path.unlink(missing_ok=True)
        self._abandon()

    def _abandon(self) -> None:
        self._file.close()
        _held.discard(self)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _locked(path: Path, wait: bool) -> IO[str] | None:
    """The file, open and locked; None where its last holder removed it before we locked it."""
    import fcntl

    file = open(path, "a")  # noqa: SIM115 - open as long as the lock is held
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
            return file
    except FileNotFoundError:
        pass
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _leave_locks() -> None:
    for lock in list(_held):
        lock._abandon()


os.register_at_fork(after_in_child=_leave_locks)


def free_name(path: Path) -> Path:
    """`path`, or the first of PATH-2, PATH-3, ... that does not exist."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a hidden folder beside `path`, not made yet, to fill; afterwards it is `path`.

    Where the body raises, or `path` has contents meanwhile (`OSError`), nothing is left of it; after a kill it
    stays until the next call for the same `path`.
    """
    short = os.fsdecode(os.fsencode(path.name)[:200])  # of a name of the greatest length too
    made = path.with_name(f".{short}.{os.getpid()}.new")
    for left in path.parent.glob(f".{glob.escape(short)}.*.new"):
        if left == made or _is_abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    try:
        yield made
        _sync_all(made)
        move(made, path)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _is_abandoned(folder: Path) -> bool:
    """Whether the process that was filling a hidden folder is gone: nobody holds the run's lock, or it is empty and
    the process that its name gives does not run here."""
    number = folder.name.removesuffix(".new").rpartition(".")[2]
    if not number.isdecimal():
        return False
    try:
        if (folder / LOCK).exists():
            Lock(folder / LOCK).close()
            return True
        return not any(folder.iterdir()) and not _runs_here(int(number))
    except OSError:
        return False


def _runs_here(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system has no links; a file that is there already stays."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
        sync(target)


def replace_link(source: Path, target: Path) -> None:
    """Let `target` be the file `source` from now on; a kill leaves the one before or this one."""
    if target.exists() and target.samefile(source):
        return  # renaming one link of a file to another leaves both
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        link_or_copy(source, temporary)
        move(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


UNBORN = ".unborn"
"""The mark of a folder that is being filled; without it, it is whole."""


@contextmanager
def filled_folder(path: Path) -> Iterator[Path]:
    """As `whole_folder`, for an empty folder that exists already, which keeps its owner, rights and file system.

    It is marked as `UNBORN` until the body has ended. Where that raises, the folder is empty again; after a kill the
    mark stays, and the next call begins by emptying it. Nobody else may be filling it.
    """
    try:
        write_bytes(path / UNBORN, b"")
        _empty(path)
        yield path
        _sync_all(path)
        (path / UNBORN).unlink()
        sync(path)
    except BaseException:
        _empty(path)
        (path / UNBORN).unlink(missing_ok=True)
        raise


def _sync_all(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def _empty(path: Path) -> None:
    for one in path.iterdir():
        if one.name in (UNBORN, LOCK):
            continue
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)
        else:
            one.unlink()


def holds_nothing(path: Path) -> bool:
    """Whether a folder is empty, but for a lock and what a kill left of one that was being filled."""
    names = {one.name for one in path.iterdir()}
    return UNBORN in names or all(name == LOCK or name.startswith(f".{UNBORN}.") for name in names)


def check_out(folder: Path, option: str = "--out") -> None:
    """Raise `UserError` where nothing could be written into `folder`, which need not exist: before minutes of work for
    it. Nothing is left there."""
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{folder} is not a folder")
        check_writable(folder)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error}. Free space, or choose another {option}.") from error


def shown_path(path: str | Path) -> Path:
    """A path as it is printed: relative to the current directory where it lies in it, else as it is."""
    path = Path(path)
    with suppress(ValueError, OSError):
        return path.relative_to(Path.cwd()) if path.is_absolute() else path
    return path
