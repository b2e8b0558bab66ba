"""The checkpoint that a branch starts from, given as a file or found in a run directory, and its run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biggan.errors import UserError, check_exists
from biggan.run.checkpoint import Checkpoint, all_checkpoints, newest_checkpoint, read_checkpoint
from biggan.run.directory import RunDirectory, run_of
from interventions.branch.timeline import Applied, applied_from_json, open_ended


@dataclass(frozen=True)
class Parent:
    """A verified checkpoint, and its run if the checkpoint is still in a run directory."""

    checkpoint: Checkpoint
    run: RunDirectory | None
    facts: dict[str, Any]
    """The run's run.json; empty where there is none."""

    @property
    def step(self) -> int:
        """The branching point: the number of finished steps."""
        return self.checkpoint.step

    @property
    def lineage(self) -> dict[str, Any]:
        """What a branch's run.json says of its parent."""
        return {
            "path": str(self.checkpoint.path.resolve()),
            "digest": self.checkpoint.digest,
            "step": self.step,
        }

    def open_changes(self) -> tuple[list[Applied], list[Applied]]:
        """The parent's own changes that have not ended, and those that have not begun (see `open_ended`)."""
        if not self.facts.get("parent"):
            return [], []
        entries = [*self.facts.get("inherited_changes", []), *self.facts.get("changes", [])]
        return open_ended(applied_from_json(entries), self.step, self.facts["parent"]["step"])


def find_parent(place: str | Path, *, at: int | None = None, before_collapse: int | None = None) -> Parent:
    """The parent in `place`: a checkpoint file, or a run directory (its newest checkpoint, that of step `at`, or the
    last one that lies `before_collapse` steps or more before the run's detected collapse).

    Raises `UserError` where there is none, and where it does not verify.
    """
    place = Path(place)
    check_exists(place)
    if place.is_dir():
        path = _in_run(place, at, before_collapse)
        checkpoint = newest_checkpoint(place)[0] if path is None else read_checkpoint(path)
    elif at is not None or before_collapse is not None:
        raise UserError(f"--at and --before-collapse need a run directory, and {place} is a file. Give the run.")
    else:
        checkpoint = read_checkpoint(place)
    run = run_of(checkpoint.path)
    facts = run.facts() if run is not None else {}
    if run is not None:
        checkpoint = dataclasses.replace(checkpoint, config=run.with_data(checkpoint.config))
    return Parent(checkpoint, run, facts)


def listed(run: Path) -> str:
    """The steps of which a run has checkpoints, in words."""
    return ", ".join(map(str, all_checkpoints(run))) or "none"


def _in_run(run: Path, at: int | None, before_collapse: int | None) -> Path | None:
    if at is not None and before_collapse is not None:
        raise UserError("--at and --before-collapse both choose the starting point. Omit one.")
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is not a run directory: it has no config.yaml. Give a run, or a checkpoint file.")
    found = all_checkpoints(run)
    if at is not None:
        if at not in found:
            raise UserError(f"{run} has no checkpoint of step {at}. It has checkpoints of steps: {listed(run)}.")
        return found[at]
    if before_collapse is None:
        return None
    onset = collapse_onset(run)
    if onset is None:
        raise UserError(f"no collapse was detected in {run}. Give --at STEP; it has checkpoints of: {listed(run)}.")
    early = [step for step in found if step <= onset - before_collapse]
    if not early:
        raise UserError(
            f"{run} collapsed at step {onset}, and has no checkpoint {before_collapse} steps before that. It has "
            f"checkpoints of steps: {listed(run)}."
        )
    return found[max(early)]


def collapse_onset(run: Path) -> int | None:
    """The onset of the run's collapse, from its scores or its `collapse` event; None if it did not collapse."""
    from biggan.observers.collapse_of_run import collapse_of
    from interventions.compare.outcome import read_outcome

    found = collapse_of(RunDirectory(run).events())
    return read_outcome(run, 0).collapse if found is None else found.onset
