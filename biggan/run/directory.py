"""The run directory: its files, its list of events, and how a session opens or reopens it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import yaml

from biggan.config.tree import Config, from_dict, to_dict
from biggan.errors import UserError
from biggan.run.checkpoint import sync
from biggan.run.provenance import other_facts, run_facts
from spectra.record.segments import append_event, supersede_events

_locks: set[IO[str]] = set()


def _leave_locks() -> None:
    """A forked process, such as a loader's, holds none of its parent's locks: it may outlive a killed parent."""
    while _locks:
        _locks.pop().close()


os.register_at_fork(after_in_child=_leave_locks)


class RunDirectory:
    """One run's files: config.yaml, run.json, events.jsonl, checkpoints/, records/, samples/, tensorboard/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.tensorboard = path / "tensorboard"
        self._lock: IO[str] | None = None

    def check_new(self) -> None:
        """Raise `UserError` where the path is taken."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(
                f"{self.path} exists and is not empty. Give another --out, or continue the run in it with --resume "
                f"{self.path}."
            )

    def lock(self) -> None:
        """Keep other processes out until `unlock` or the end of this one. Raises `UserError` where one is in."""
        import fcntl

        self._lock = open(self.path / ".lock", "w")  # noqa: SIM115 - held open on purpose
        _locks.add(self._lock)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.unlock()
            raise UserError(
                f"another process is training in {self.path}. Wait until it has ended, or stop it."
            ) from error

    def unlock(self) -> None:
        """Let other processes in."""
        if self._lock is not None:
            _locks.discard(self._lock)
            self._lock.close()
            self._lock = None

    def changed_facts(self, config: Config) -> dict[str, list[Any]]:
        """What of run.json is otherwise now and may change bits: name -> [then, now]."""
        path = self.path / "run.json"
        then = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return other_facts(then, run_facts(config))

    def data_identity(self) -> dict[str, Any] | None:
        """What run.json remembers of the data; None for a run from before that was written down."""
        path = self.path / "run.json"
        return json.loads(path.read_text(encoding="utf-8")).get("data") if path.is_file() else None

    def continued_by(self, step: int) -> str | None:
        """The command that a run at `step` is to be continued with, where its run.json says that it is another's.

        So for a branch in which something is still to change.
        """
        path = self.path / "run.json"
        found = json.loads(path.read_text(encoding="utf-8")).get("continued_by") if path.is_file() else None
        return f"{found['command']} {self.path}" if found and step <= found["through"] else None

    def class_names(self) -> list[str] | None:
        """The classes' names by their numbers; None for a run from before these were written down."""
        path = self.path / "run.json"
        return json.loads(path.read_text(encoding="utf-8")).get("class_names") if path.is_file() else None

    def write_data_identity(self, identity: Mapping[str, Any], class_names: Sequence[str]) -> None:
        """Remember what the run's data are from now on."""
        path = self.path / "run.json"
        facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        write_whole(
            path, json.dumps(facts | {"data": dict(identity), "class_names": list(class_names)}, indent=2) + "\n"
        )

    def create(self, config: Config, facts: Mapping[str, Any] | None = None) -> None:
        """Make the directory of a new run; `facts` join its run.json. Raises `UserError` where there is one already."""
        self.check_new()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the run directory {self.path}: {error}. Give another --out.") from error
        self.lock()
        self.write_config(config)
        write_whole(self.path / "run.json", json.dumps(run_facts(config) | dict(facts or {}), indent=2) + "\n")

    def create_whole(self, config: Config, facts: Mapping[str, Any], fill: Callable[[RunDirectory], None]) -> None:
        """As `create`, with contents that `fill` puts in: the directory gets its name when all of it is there.

        After an error nothing is left; after a kill a hidden directory beside, which is in nobody's way.
        """
        made = RunDirectory(self.path.with_name(f".{self.path.name}.{os.getpid()}.new"))
        shutil.rmtree(made.path, ignore_errors=True)
        try:
            made.create(config, facts)
            fill(made)
            os.replace(made.path, self.path)
        except BaseException:
            made.unlock()
            shutil.rmtree(made.path, ignore_errors=True)
            raise
        self._lock = made._lock

    def write_config(self, config: Config) -> None:
        """Write the whole resolved configuration."""
        write_whole(self.path / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))

    def read_config(self) -> Config:
        """The run's configuration. Raises `UserError` where this is no run directory."""
        path = self.path / "config.yaml"
        if not path.is_file():
            raise UserError(f"{self.path} is no run directory: it has no config.yaml. Give an earlier run's --out.")
        return from_dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})

    def append_event(self, event: Mapping[str, Any]) -> None:
        """Add one line to events.jsonl, whole on the disk when this returns."""
        append_event(self.path, event)

    def events(self) -> list[dict[str, Any]]:
        """What happened, in order; a line torn by a kill is left out."""
        path = self.path / "events.jsonl"
        found = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return found

    def supersede_events(self, step: int) -> None:
        """Mark the events after `step` as superseded, before a session resumes from there. None is lost."""
        supersede_events(self.path, step)


def run_of(checkpoint: Path) -> RunDirectory | None:
    """The run directory that a checkpoint file lies in, also in its ring that an alarm froze; none elsewhere."""
    for folder in list(checkpoint.resolve().parents)[:3]:
        if folder.name == "checkpoints" and (folder.parent / "run.json").is_file():
            return RunDirectory(folder.parent)
    return None


def class_names_of(checkpoint: Path, classes: int) -> list[str]:
    """What a checkpoint's classes are called by its run; "class 0", ... where it lies in none that says so."""
    run = run_of(checkpoint)
    names = None if run is None else run.class_names()
    return names if names is not None and len(names) == classes else [f"class {c}" for c in range(classes)]


def make_event(kind: str, step: int, **fields: Any) -> dict[str, Any]:
    """One line of events.jsonl: what happened, after which step, and when (seconds since 1970)."""
    return {"event": kind, "step": step, "time": round(time.time(), 3), **fields}


def default_path(preset: str) -> Path:
    """runs/PRESET, or the first free of runs/PRESET-2, runs/PRESET-3, ..."""
    path, number = Path("runs") / preset, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{preset}-{number}"
    return path


def remove_later(folder: Path, step: int, pattern: str = "step-*.png") -> None:
    """Delete the folder's step-numbered files of steps after `step`, which are about to be made again."""
    for path in folder.glob(pattern):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that a kill leaves the old contents or the new ones."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync(path.parent)
