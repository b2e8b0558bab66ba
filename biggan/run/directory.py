"""The run directory: its files, its list of events, and how a session opens or reopens it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from biggan.config import Config, to_dict
from biggan.errors import UserError
from biggan.run.files import Lock, free_name, whole_folder
from biggan.run.provenance import other_facts, run_facts
from biggan.run.small_files import read_config, read_run_json
from spectra.record.events import append_event, read_event_lines, supersede_events
from spectra.record.files import write_text


class RunDirectory:
    """One run's files: config.yaml, run.json, events.jsonl, checkpoints/, records/, samples/, tensorboard/."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.tensorboard = path / "tensorboard"
        self._lock: Lock | None = None

    def check_new(self) -> None:
        """Raise `UserError` where the path is taken."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(
                f"{self.path} exists and is not empty. Choose another --out, or continue the run in it with --resume "
                f"{self.path}."
            )

    def lock(self) -> None:
        """Lock the run until `unlock` or the end of this process. Raises `UserError` if another process has locked
        it."""
        try:
            self._lock = Lock(self.path / ".lock")
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

    def changed_facts(self, config: Config) -> dict[str, list[Any]]:
        """What differs now from run.json and may change bits: name -> [then, now]."""
        return other_facts(self.facts(), run_facts(config))

    def data_identity(self) -> dict[str, Any] | None:
        """The data's description in run.json; None if it has none."""
        return self.facts().get("data")

    def continued_by(self, step: int) -> str | None:
        """The command to continue a run at `step`, if its run.json names another one than biggan-train.

        It does so for a branch whose changes are not all made yet.
        """
        found = self.facts().get("continued_by")
        return f"{found['command']} {self.path}" if found and step <= found["through"] else None

    def class_names(self) -> list[str] | None:
        """The classes' names by their numbers; None if they are not recorded."""
        names = self.facts().get("class_names")
        return None if names is None else list(map(str, names))  # some data sets call them by numbers

    def write_data_identity(self, identity: Mapping[str, Any], class_names: Sequence[str]) -> None:
        """Store the description of the run's data from now on."""
        self._write_facts(self.facts() | {"data": dict(identity), "class_names": list(class_names)})

    def create(self, config: Config, facts: Mapping[str, Any] | None = None) -> None:
        """Make the directory of a new run; `facts` join its run.json. Raises `UserError` where there is one already."""
        self.check_new()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the run directory {self.path}: {error}. Choose another --out.") from error
        self.lock()
        self.write_config(config)
        self._write_facts(run_facts(config) | dict(facts or {}))

    def create_whole(self, config: Config, facts: Mapping[str, Any], fill: Callable[[RunDirectory], None]) -> None:
        """As `create`, with contents that `fill` puts in: the directory gets its name when all of it is there.

        After an error nothing is left; after a kill a hidden directory beside it, which does no harm.
        """
        with whole_folder(self.path) as path:
            made = RunDirectory(path)
            try:
                made.create(config, facts)
                fill(made)
            except BaseException:
                made.unlock()
                raise
        self._lock = made._lock

    def write_config(self, config: Config) -> None:
        """Write the whole resolved configuration."""
        write_text(self.path / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))

    def read_config(self) -> Config:
        """The run's configuration. Raises `UserError` where this is not a run directory, or the file is damaged."""
        path = self.path / "config.yaml"
        if not path.is_file():
            raise UserError(f"{self.path} is not a run directory: it has no config.yaml. Give an earlier run's --out.")
        return read_config(path)

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


def default_path(preset: str) -> Path:
    """runs/PRESET, or the first free of runs/PRESET-2, runs/PRESET-3, ..."""
    return free_name(Path("runs") / preset)
