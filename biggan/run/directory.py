"""The run directory: its files, its list of events, and how a session opens or reopens it."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from biggan.config import Config, to_dict
from biggan.errors import UserError, check_exists
from biggan.run.files import LOCK, UNBORN, Lock, filled_folder, free_name, holds_nothing, whole_folder
from biggan.run.provenance import other_facts, run_facts
from biggan.run.small_files import read_config, read_run_json
from spectra.record.events import append_event, read_event_lines, supersede_events
from spectra.record.files import new_folder, write_text


class RunDirectory:
    """One run's files: config.yaml, run.json, events.jsonl, checkpoints/, records/, samples/, tensorboard/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.tensorboard = path / "tensorboard"
        self._lock: Lock | None = None

    def is_begun(self) -> bool:
        """Whether the path is taken: by more than an empty directory, or one whose run was cut off while it was made.

        Raises `UserError` for a path that cannot be.
        """
        try:
            os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (OSError, ValueError) as error:
            raise UserError(f"cannot use {str(self.path)[:80]!r} as a run directory: {_reason(error)}.") from error
        return not (self.path.is_dir() and holds_nothing(self.path))

    def check_new(self) -> None:
        """Raise `UserError` where the path is taken, or cannot be."""
        begun = self.is_begun()
        if begun and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, expected a new run directory. Choose another --out.")
        if begun:
            raise UserError(
                f"{self.path} exists and is not empty. Choose another --out, or continue the run in it with --resume "
                f"{shlex.quote(str(self.path))}."
            )

    def lock(self) -> None:
        """Lock the run until `unlock` or the end of this process. Raises `UserError` if another process has locked
        it."""
        try:
            self._lock = Lock(self.path / LOCK)
        except BlockingIOError as error:
            raise UserError(
                f"another process is training in {self.path}. Wait until it has ended, or stop it."
            ) from error

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def facts(self) -> dict[str, Any]:
        """The contents of run.json; empty if it does not exist. Raises `UserError` if it is damaged."""
        return read_run_json(self.path / "run.json")

    def _write_facts(self, facts: Mapping[str, Any]) -> None:
        write_text(self.path / "run.json", json.dumps(facts, indent=2) + "\n")

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """Add to run.json, or replace what it has under these names."""
        self._write_facts(self.facts() | dict(facts))

    def changed_facts(self, config: Config) -> dict[str, list[Any]]:
        """What differs now from run.json and may change bits: name -> [then, now]."""
        return other_facts(self.facts(), run_facts(config))

    def data_identity(self) -> dict[str, Any] | None:
        """The data's description in run.json; None if it has none."""
        return self.facts().get("data")

    def continued_by(self, step: int) -> str | None:
        """The command to continue a run at `step`, if that is another one than biggan-train: of a branch whose changes
        are not all made yet. It names the files that their code came from."""
        found = self.facts().get("continued_by")
        if not found or step > found["through"]:
            return None
        files = [word for place in found.get("change_files", []) for word in ("--change-file", str(place))]
        return shlex.join(["biggan-intervene", "--resume", str(self.path), *files])

    def class_names(self) -> list[str] | None:
        """The classes' names by their numbers; None if they are not recorded."""
        names = self.facts().get("class_names")
        return None if names is None else list(map(str, names))  # some data sets call them by numbers

    def write_data_identity(self, identity: Mapping[str, Any], class_names: Sequence[str]) -> None:
        """Store the description of the run's data from now on."""
        self._write_facts(self.facts() | {"data": dict(identity), "class_names": list(class_names)})

    def create_whole(self, config: Config, facts: Mapping[str, Any], fill: Callable[[RunDirectory], None]) -> None:
        """Make the directory of a new run and lock it; `facts` join its run.json, `fill` puts further contents in.

        It is there when all of it is. After an error nothing is left; after a kill a hidden directory beside it, which
        the next run there removes, or an unfinished one that was empty before, which counts as empty. Raises
        `UserError` where the path is taken or the directory cannot be made.
        """
        self.check_new()
        if self.path.is_dir():
            self._fill_the_empty(config, facts, fill)
            return
        made: RunDirectory | None = None
        try:
            with new_folder(self.path.parent), whole_folder(self.path) as path:
                made = RunDirectory(path)
                path.mkdir()
                made._fill(config, facts, fill)
        except BaseException as error:
            if made is not None:
                made.unlock()
            if not isinstance(error, OSError):
                raise
            self.check_new()  # another process may have made it meanwhile
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise UserError(
                f"cannot make the run directory {self.path}: {_reason(error)}. Choose another --out."
            ) from error
        self._lock = made._lock

    def _fill_the_empty(self, config: Config, facts: Mapping[str, Any], fill: Callable[[RunDirectory], None]) -> None:
        """The same in an empty directory that exists: a mounted one cannot be renamed, and has its own rights."""
        self.lock()
        try:
            self.check_new()  # now that no other process can be making a run in it
            with filled_folder(self.path):
                self._fill(config, facts, fill)
        except BaseException:
            if holds_nothing(self.path):
                (self.path / LOCK).unlink(missing_ok=True)
            self.unlock()
            raise

    def _fill(self, config: Config, facts: Mapping[str, Any], fill: Callable[[RunDirectory], None]) -> None:
        if self._lock is None:
            self.lock()
        self.write_config(config)
        self._write_facts(run_facts(config) | dict(facts))
        fill(self)

    def write_config(self, config: Config) -> None:
        """Write the whole resolved configuration."""
        write_text(self.path / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))

    def read_config(self) -> Config:
        """The run's configuration. Raises `UserError` where this is not a run directory, or the file is damaged."""
        path = self.path / "config.yaml"
        check_exists(self.path)
        if (self.path / UNBORN).exists():
            raise UserError(
                f"{self.path} was cut off while its run was made, and holds no training. Begin it again with the "
                f"command that began it."
            )
        if not path.is_file():
            raise UserError(f"{self.path} is not a run directory: it has no config.yaml. Give an earlier run's --out.")
        return read_config(path)

    def with_data(self, config: Config) -> Config:
        """A configuration of one of the run's checkpoints, its data as config.yaml has it now where it has none: an
        imported state is older than its data. Raises `UserError` where the file is damaged."""
        if config.data.path is not None or not self.facts().get("imported"):
            return config
        return dataclasses.replace(config, data=self.read_config().data)

    def append_event(self, event: Mapping[str, Any]) -> None:
        """Add one line to events.jsonl, whole on the disk when this returns."""
        append_event(self.path, event)

    def events(self) -> list[dict[str, Any]]:
        """The events in order; a damaged line is left out with a warning."""
        return read_event_lines(self.path)

    def events_that_hold(self, kind: str | None = None, through: int | None = None) -> list[dict[str, Any]]:
        """The events that no resume has superseded, in order: all, or those of one kind, or those up to a step."""
        return [
            event
            for event in self.events()
            if not event.get("superseded")
            and (kind is None or event["event"] == kind)
            and (through is None or event["step"] <= through)
        ]

    def supersede_events(self, step: int) -> None:
        """Mark the events after `step` as superseded, before a session resumes from there. No event is deleted."""
        supersede_events(self.path, step)


def run_of(checkpoint: Path) -> RunDirectory | None:
    """The run directory that a checkpoint file lies in, also in its ring that an alarm froze; none elsewhere."""
    for folder in list(checkpoint.resolve().parents)[:3]:
        if folder.name == "checkpoints" and (folder.parent / "run.json").is_file():
            return RunDirectory(folder.parent)
    return None


def class_names_of(checkpoint: Path, classes: int) -> list[str]:
    """The class names of a checkpoint's run; "class 0", ... if it is not in a run or the run has no names."""
    run = run_of(checkpoint)
    names = None if run is None else run.class_names()
    return names if names is not None and len(names) == classes else [f"class {c}" for c in range(classes)]


def make_event(kind: str, step: int, **fields: Any) -> dict[str, Any]:
    """One line of events.jsonl: the event, its step, and the time (seconds since 1970)."""
    return {"event": kind, "step": step, "time": round(time.time(), 3), **fields}


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def default_path(preset: str) -> Path:
    """runs/PRESET, or the first free of runs/PRESET-2, runs/PRESET-3, ..."""
    return free_name(Path("runs") / preset)
