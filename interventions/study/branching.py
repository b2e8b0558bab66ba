"""The base runs of a study: adopted or trained, and where each one is branched."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from biggan.errors import UserError
from interventions.study.expand import Base
from interventions.study.growth import check_study, load_study, training_differences
from interventions.study.worker import has_ended

if TYPE_CHECKING:
    from biggan.config import Config

UNCOLLAPSED_SHARE = 0.6
"""Where a base run is branched, as a share of its length, if none of the base runs collapsed."""


def study_config(preset: str) -> Config:
    """The configuration of a preset, or of a YAML file in the form of a preset. Raises `UserError` for neither."""
    from biggan.cli.options import parse
    from biggan.config.presets import FOLDERS

    path = Path(preset)
    if path.suffix not in (".yaml", ".yml"):
        return parse([preset]).config()
    if not path.is_file():
        raise UserError(f"there is no file {preset}. Give a preset's name, or a YAML file in the form of a preset.")
    FOLDERS.insert(0, path.parent)
    try:
        return parse([path.stem]).config()
    finally:
        FOLDERS.remove(path.parent)


def share_or_steps(text: str) -> float:
    """`10%` as 0.1, and `400` as 400.0. Raises `UserError` for anything else, for a share of 1 or more, and below 0."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise UserError(f"--before is '{text}', expected a share such as 10%, or steps such as 400.") from error
    if value < 0 or (text.endswith("%") and value >= 1) or (not text.endswith("%") and value != int(value)):
        raise UserError(f"--before is '{text}', expected a share from 0% to 99%, or a number of steps.")
    return value


def check_adopted(run: Path, config: Config) -> None:
    """Raise `UserError` where the run in `run` is not one of `config`."""
    from biggan.run.directory import RunDirectory

    found = RunDirectory(run).read_config()
    changed = training_differences(config, found)
    if config.device == "auto":  # a run's configuration says what that was
        changed.pop("device", None)
    if changed:
        listed = "; ".join(f"{name}: {before} -> {after}" for name, (before, after) in changed.items())
        raise UserError(
            f"{run} is not a run of this preset and seed, so it cannot be a base run. It differs (preset -> run): "
            f"{listed}. Move it away to train the base run, or choose another --out."
        )


def is_being_trained(run: Path) -> bool:
    """Whether another process is training the run."""
    from biggan.run.files import Lock

    if not (run / ".lock").is_file():
        return False
    try:
        Lock(run / ".lock").close()
    except BlockingIOError:
        return True
    return False


def place_before(onset: int, before: float) -> int:
    """The last step to branch at: `before` steps before the onset, or, if below 1, that share of it."""
    return onset - round(onset * before if 0 < before < 1 else before)


def branching_places(
    ended: Mapping[str, Path], before: float, length: int, known: Sequence[int], *, all_ended: bool
) -> tuple[dict[str, int], list[str]]:
    """The last step to branch at, by name, of the base runs in `ended`; and notes on those that did not collapse.

    These are branched at the median place of those that did (`known`: the places that are decided already), or, if none
    did, at 60 % of their length; they have none until `all_ended`.
    """
    from interventions.branch.parent import collapse_onset

    onsets = {name: collapse_onset(run) for name, run in ended.items()}
    places = {name: place_before(onset, before) for name, onset in onsets.items() if onset is not None}
    notes = []
    for name in [name for name in onsets if name not in places] if all_ended else []:
        others = [*known, *(places[one] for one in onsets if onsets[one] is not None)]
        places[name] = int(median(others)) if others else round(UNCOLLAPSED_SHARE * length)
        where = "the median place of those that did" if others else "60 % of its length, as no base run collapsed"
        notes.append(f"{name} did not collapse: it is branched at {where} (step {places[name]})")
    return places, notes


def make_base(base: Base, run: Path, place: int, *, at_least: int = 1) -> Base | None:
    """The base run with its branching checkpoint: the newest of `run` from step `at_least` to step `place`; None where
    there is none."""
    from biggan.run.checkpoint import all_checkpoints, digest, read_checkpoint

    early = {step: path for step, path in all_checkpoints(run).items() if at_least <= step <= place}
    if not early:
        return None
    step = max(early)
    checkpoint = read_checkpoint(early[step])
    path, state = str(early[step].resolve()), digest(checkpoint.tensors, {"step": str(step)})
    return dataclasses.replace(base, checkpoint=path, digest=checkpoint.digest, step=step, state=state)


@dataclass(frozen=True)
class Added:
    """A recorded study that a new one adds to: what was run there, without its checkpoints."""

    folder: Path
    bases: Mapping[str, Base]
    done: frozenset[str]
    """The keys of its runs that have ended."""

    def check_state(self, base: Base) -> None:
        """Raise `UserError` where a base run that was trained again is not the recorded one at its branching step."""
        before = self.bases[base.name]
        if base.state != before.state:
            raise UserError(
                f"{base.name} was trained again, and at step {base.step} it is not the run that is recorded in "
                f"{self.folder}: this machine or build rounds differently, or no digest was recorded. It cannot be "
                f"branched for that study. Use other base runs: --first-seed N."
            )


def open_added(folder: Path, facts: Mapping[str, Any]) -> Added:
    """The recorded study in `folder`. Raises `UserError` for another kind of plan, and for other settings."""
    before = load_study(folder)
    if before is None or before.study is None:
        raise UserError(f"--add {folder} is not a study: it has no plan.json.")
    check_study(before.study, facts, folder)
    done = frozenset(job.key for job in before.jobs if has_ended(folder / job.key))
    return Added(folder, {base.name: base for base in before.bases if base.step}, done)
