"""Code of a user's own changes. It is named by whoever calls, on the command line, and is never looked up by what a run
or a plan says; its digest is kept with what it did."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from biggan.errors import UserError
from interventions.changes.base import CHANGES, Change

_PREFIX = "interventions_file_"


@dataclass(frozen=True)
class ChangeFile:
    """A file of changes as it was when it was run."""

    place: str
    """Its absolute path; of a module that was imported by name, that name."""
    digest: str
    """Of its text, BLAKE2b."""
    text: str

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return Path(self.place).name


_LOADED: dict[str, ChangeFile] = {}
"""Module -> the file that it was run from."""


def load_file(place: str | Path, digest: str | None = None) -> ChangeFile:
    """Run a file of changes, or import a module of them by its name `package.module`; those in it are then known by
    name. A file that was run already is run again only if its text has changed.

    Raises `UserError` where there is none, where it raises an error, and, before anything is run, where its text is not
    that of `digest`.
    """
    text = str(place)
    if not text.endswith(".py") and not Path(text).is_file():
        return _module_file(text, digest)
    path = Path(place).resolve()
    found = _read(path, str(path))
    _check(found, digest)
    module_name = f"{_PREFIX}{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=8).hexdigest()}"
    if _LOADED.get(module_name) != found:
        _run(found, module_name)
        _LOADED[module_name] = found
    for kind in _changes_in(sys.modules[module_name]).values():
        if kind.name:
            CHANGES.setdefault(kind.name, kind)
    return found


def import_change(name: str) -> tuple[type[Change], ChangeFile]:
    """The class that `file.py:Class` or `package.module:Class` means, and its file. Raises `UserError` for none."""
    place, _, class_name = name.rpartition(":")
    found = load_file(place)
    here = _changes_in(next(sys.modules[module] for module, file in _LOADED.items() if file == found))
    if class_name not in here:
        raise UserError(f"'{name}' is not a change: {place} has {', '.join(here) or 'no subclass of Change'}.")
    if not here[class_name].name:
        raise UserError(f"the change {name} has no name. Give it one: class {class_name}(Change, name='...').")
    return here[class_name], found


def _changes_in(module: ModuleType) -> dict[str, type[Change]]:
    """The changes that a module defines or imports, by the names that it gives them."""
    own = {name: kind for name, kind in vars(module).items() if isinstance(kind, type) and kind is not Change}
    return {name: kind for name, kind in own.items() if issubclass(kind, Change)}


def code_of(change: Change | type[Change]) -> ChangeFile | None:
    """The file that a user's change came from; None for the package's own, and for one made without a file."""
    kind = change if isinstance(change, type) else type(change)
    return _LOADED.get(kind.__module__)


def _read(path: Path, place: str) -> ChangeFile:
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise UserError(
            f"there is no Python file {path}. Give the path of a file with subclasses of Change."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error}). Give a Python file.") from error
    return ChangeFile(place, hashlib.blake2b(data, digest_size=32).hexdigest(), text)


def _check(found: ChangeFile, digest: str | None) -> None:
    if digest is not None and found.digest != digest:
        raise UserError(
            f"{found.place} has changed since the runs began: its digest is {found.digest[:16]}, and theirs "
            f"{digest[:16]}. Restore it, or begin again with another --out."
        )


def _run(found: ChangeFile, module_name: str) -> None:
    """Run exactly the text that the digest is of (an import might take an older compiled file)."""
    module = ModuleType(module_name)
    module.__file__ = found.place
    before = sys.modules.get(module_name)
    own = {name for name, kind in CHANGES.items() if kind.__module__ == module_name}
    earlier = {name: CHANGES.pop(name) for name in own}  # of an earlier text
    sys.modules[module_name] = module
    try:
        exec(compile(found.text, found.place, "exec"), vars(module))
    except Exception as error:
        sys.modules.pop(module_name)
        for name in [name for name, kind in CHANGES.items() if kind.__module__ == module_name]:
            CHANGES.pop(name)
        CHANGES.update(earlier)
        if before is not None:
            sys.modules[module_name] = before
        if isinstance(error, UserError):
            raise
        raise UserError(f"{found.place} cannot be run: {type(error).__name__}: {error}.") from error


def _module_file(name: str, digest: str | None) -> ChangeFile:
    """A module of changes, imported as Python finds it."""
    try:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.origin or not Path(spec.origin).is_file():
            raise UserError(f"there is no Python file or module {name}. Give the path of a file of changes.")
        found = _read(Path(spec.origin), name)
        _check(found, digest)
        module = importlib.import_module(name)
    except (ImportError, ValueError) as error:
        raise UserError(f"cannot import '{name}': {error}. Give the path of a file of changes.") from error
    _LOADED[module.__name__] = found
    return found
