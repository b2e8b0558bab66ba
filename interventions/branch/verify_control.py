"""Whether an unchanged branch equals its parent: the record number by number, the state bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from biggan.config import differences
from biggan.run.checkpoint import CheckpointError, all_checkpoints, read_checkpoint
from biggan.run.directory import RunDirectory

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

SINGULAR = r"sigma\d+/"
NOT_COMPARED = ("monitor/",)
"""Quantities that depend on the clock."""
OBSERVERS = {
    "spectra": ("singular values and everything else that the monitor measures", ("monitor/",)),
    "discriminator_view": ("D's output on fixed images", ("D/accuracy/", "D/auc/", "D/gap/", "D/input_gradient/")),
    "eval": ("scores", ("eval/",)),
}
"""Sections of the configuration that choose what is recorded without affecting training, and what they record."""


@dataclass
class ControlComparison:
    """What was compared over which steps, and every difference found."""

    begin: int
    last: int | None = None
    """The last step of both records; none where the parent's holds nothing after `begin`."""
    numbers: int = 0
    singular_values: int = 0
    states: list[int] = field(default_factory=list)
    """Steps whose checkpoints were compared."""
    tensors: int = 0
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was left out of the comparison, and why."""

    @property
    def equal(self) -> bool:
        """Whether something was compared, and nothing differs."""
        return not self.differences and bool(self.states or self.numbers or self.singular_values)

    def __str__(self) -> str:
        lines = []
        if self.last is None:
            lines.append(f"record: not compared, because the parent's record ends at step {self.begin}.")
        else:
            lines.append(
                f"record, steps {self.begin + 1} to {self.last}: {self.numbers:,} losses, norms and other numbers and "
                f"{self.singular_values:,} singular values compared."
            )
        lines += self.notes
        if self.states:
            lines.append(f"state: {self.tensors:,} tensors at step {', '.join(map(str, self.states))} compared.")
        else:
            lines.append("state: not compared, because the parent and the branch have no checkpoint of the same step.")
        if self.equal:
            lines.append("The branch equals its parent, bit for bit.")
        elif not self.differences:
            lines.append("Nothing could be compared: branch from an earlier checkpoint of the parent.")
        else:
            more = f"\n  and {len(self.differences) - 10} more" if len(self.differences) > 10 else ""
            lines.append("The branch differs from its parent:\n  " + "\n  ".join(self.differences[:10]) + more)
        return "\n".join(lines)


def compare_with_parent(branch: Path, parent: Path, begin: int) -> ControlComparison:
    """Compare the unchanged `branch` from step `begin` with the run `parent`, up to the last step of both."""
    found = ControlComparison(begin)
    _note_versions(branch, parent, found)
    _compare_records(branch, parent, found)
    mine, theirs = all_checkpoints(branch), all_checkpoints(parent)
    for step in sorted(set(mine) & set(theirs)):
        if step > begin:
            _compare_states(mine[step], theirs[step], step, found)
    return found


def _note_versions(branch: Path, parent: Path, found: ControlComparison) -> None:
    """Equal bits are guaranteed only with one version of the program and of torch, on one machine."""
    from biggan.run.provenance import DECISIVE
    from spectra.record.events import read_event_lines

    here, there = (RunDirectory(run).facts() for run in (branch, parent))
    for name in DECISIVE:
        one, other = here.get(name, "not said"), there.get(name, "not said")
        if one != other:
            found.notes.append(f"note: {name} is {one} here and {other} in the parent's run.json.")
    if here.get("dirty") and there.get("dirty"):
        found.notes.append("note: both ran uncommitted code, which may have differed.")
    for whose, run in (("branch", branch), ("parent", parent)):
        for event in read_event_lines(run):
            if event["event"] == "resumed" and not event.get("superseded"):
                others = event.get("other_versions") or {}
                said = "; ".join(f"{name} {then} -> {now}" for name, (then, now) in others.items())
                found.notes += [f"note: the {whose} was resumed at step {event['step']} with {said}."] if said else []


def _set_otherwise(branch: Path, parent: Path) -> dict[str, str]:
    """Of the observers' sections that differ between the two runs' configurations: how, in words."""
    if not all((run / "config.yaml").is_file() for run in (branch, parent)):
        return {}
    changed = differences(*(RunDirectory(run).read_config() for run in (parent, branch)))
    found: dict[str, list[str]] = {}
    for name, (old, new) in changed.items():
        section = name.partition(".")[0]
        if section in OBSERVERS:
            found.setdefault(section, []).append(f"{name} is {new} here and {old} in the parent")
    return {section: ", ".join(words) for section, words in found.items()}


def _measured(run: Path) -> Callable[[str], bool]:
    """Whether a series is one that the monitor measures at its schedule, and not a number of the training step's."""
    from spectra.record.segments import read_legend

    legend = read_legend(run)
    subjects = {*legend.get("layers", {}), *legend.get("parameters", {})}
    alone = {quantity for quantity, frame in legend.get("frames", {}).items() if frame == "scalars"}

    def is_measured(name: str) -> bool:
        quantity, _, subject = name.partition("/")
        return quantity in alone or subject.partition("/")[0] in subjects

    return is_measured


def _leave_out_set_otherwise(
    mine: pd.DataFrame, theirs: pd.DataFrame, branch: Path, parent: Path, found: ControlComparison
) -> list[pd.DataFrame]:
    """Both records without what an observer with other settings recorded: at other steps, or of other things."""
    both = [mine, theirs]
    measured = [_measured(run) for run in (branch, parent)]
    for section, said in _set_otherwise(branch, parent).items():
        what, prefixes = OBSERVERS[section]

        def is_its(name: str, section: str = section, prefixes: tuple[str, ...] = prefixes) -> bool:
            by_monitor = section == "spectra" and any(one(name) for one in measured)
            return by_monitor or name.startswith(prefixes)

        both = [one[~one.index.get_level_values("name").map(is_its).to_numpy(dtype=bool)] for one in both]
        found.notes.append(f"not compared: {what} ({said}). State and training numbers are.")
    return both


def _leave_out_unshared(mine: pd.DataFrame, theirs: pd.DataFrame, found: ControlComparison) -> list[pd.DataFrame]:
    """Both records without the quantities that only one of them holds at all."""
    names = [set(record.index.unique("name")) for record in (mine, theirs)]
    for whose, only in (("branch", names[0] - names[1]), ("parent", names[1] - names[0])):
        if only:
            few = ", ".join(sorted(only)[:3]) + (", ..." if len(only) > 3 else "")
            found.notes.append(f"not compared: {len(only)} quantities that only the {whose} records ({few}).")
    shared = names[0] & names[1]
    return [record[record.index.get_level_values("name").isin(shared)] for record in (mine, theirs)]


def _compare_records(branch: Path, parent: Path, found: ControlComparison) -> None:
    mine, theirs = _series(branch, found.begin), _series(parent, found.begin)
    if not len(mine) or not len(theirs):
        return
    ends = [one.index.get_level_values("step").max() for one in (mine, theirs)]
    mine, theirs = _leave_out_set_otherwise(mine, theirs, branch, parent, found)
    mine, theirs = _leave_out_unshared(mine, theirs, found)
    if not len(mine) or not len(theirs):
        return
    found.last = int(min(ends))
    both = mine.add_suffix("_branch").join(theirs.add_suffix("_parent"), how="outer")
    both = both[both.index.get_level_values("step") <= found.last]
    singular = both.index.get_level_values("name").str.match(SINGULAR)
    found.numbers, found.singular_values = int((~singular).sum()), int(singular.sum())
    found.differences += _unequal(both)


def _unequal(both: pd.DataFrame) -> Iterator[str]:
    """Every number that differs in any bit, or that one of the two records lacks, in words."""
    import numpy as np

    one, other = both["value_branch"].to_numpy(), both["value_parent"].to_numpy()
    # A NaN that was recorded is data and equal to another; one that stands for a missing number is not.
    lacks = both["there_branch"].isna().to_numpy(), both["there_parent"].isna().to_numpy()
    same = (one.view(np.int64) == other.view(np.int64)) | (np.isnan(one) & np.isnan(other))
    for position in np.flatnonzero(~same | lacks[0] | lacks[1]):
        step, name = both.index[position]
        if lacks[0][position] or lacks[1][position]:
            yield f"step {step}: {name} is recorded only by {'the parent' if lacks[0][position] else 'the branch'}"
        else:
            yield f"step {step}: {name} is {float(one[position])}, in the parent {float(other[position])}"


def _series(run: Path, begin: int) -> pd.DataFrame:
    """The record after step `begin`, one row a (step, name)."""
    from spectra.record.segments import read_record

    record = read_record(run)
    names = record["name"].astype(str)
    record = record[(record["step"] > begin) & ~names.str.startswith(NOT_COMPARED)]
    record = record.assign(name=record["name"].astype(str), there=True)
    return record.set_index(["step", "name"])


def _compare_states(mine: Path, theirs: Path, step: int, found: ControlComparison) -> None:
    import torch

    try:
        one, other = read_checkpoint(mine), read_checkpoint(theirs)
    except CheckpointError as error:
        found.differences.append(str(error))
        return
    found.states.append(step)
    found.tensors += len(one.tensors)
    for name in sorted(set(one.tensors) | set(other.tensors)):
        if name not in one.tensors or name not in other.tensors:
            found.differences.append(f"state at step {step}: only one of them has {name}")
            continue
        if not torch.equal(_bytes(one.tensors[name]), _bytes(other.tensors[name])):
            found.differences.append(f"state at step {step}: {name} differs")


def _bytes(tensor: Tensor) -> Tensor:
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8)
