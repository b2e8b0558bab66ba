"""Whether a branch is what its parent was: the record number by number, the state bit for bit."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.checkpoint import CheckpointError, read_checkpoint
from interventions.parent import all_checkpoints

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

SINGULAR = re.compile(r"sigma\d+/")
RESIDUAL = re.compile(r"residual/")
NEGLIGIBLE = 1e-5
"""A residual below this, the estimators' tolerance, is rounding: two of them need not be of the same bits."""
NOT_COMPARED = ("monitor/",)
"""What depends on the clock."""


@dataclass
class Comparison:
    """What was compared over which steps, and every difference found."""

    begin: int
    last: int | None = None
    """The last step of both records; none where the parent's holds nothing after `begin`."""
    numbers: int = 0
    singular_values: int = 0
    beyond_bits: int = 0
    """Singular values that differ, by no more than the residuals allow."""
    states: list[int] = field(default_factory=list)
    """Steps whose checkpoints were compared."""
    tensors: int = 0
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was left out of the comparison, and why."""

    @property
    def equal(self) -> bool:
        """Whether something was compared, and nothing differs."""
        return not self.differences and bool(self.states or self.numbers)

    def __str__(self) -> str:
        lines = []
        if self.last is None:
            lines.append(f"record: the parent's holds nothing after step {self.begin}; not compared.")
        else:
            within = f", {self.beyond_bits} of them within their residuals" if self.beyond_bits else ""
            lines.append(
                f"record, steps {self.begin + 1} to {self.last}: {self.numbers:,} losses, norms and other numbers and "
                f"{self.singular_values:,} singular values compared{within}."
            )
        lines += self.notes
        if self.states:
            lines.append(f"state: {self.tensors:,} tensors at step {', '.join(map(str, self.states))} compared.")
        else:
            lines.append("state: the parent and the branch have no checkpoint of one step in common; not compared.")
        if self.equal:
            kind = "bit for bit" if not self.beyond_bits else "but for singular values within their residuals"
            lines.append(f"The branch equals its parent, {kind}.")
        elif not self.differences:
            lines.append("Nothing could be compared: branch from an earlier checkpoint of the parent.")
        else:
            more = f"\n  and {len(self.differences) - 10} more" if len(self.differences) > 10 else ""
            lines.append("The branch differs from its parent:\n  " + "\n  ".join(self.differences[:10]) + more)
        return "\n".join(lines)


def compare_with_parent(branch: Path, parent: Path, begin: int) -> Comparison:
    """Compare the unchanged `branch` of step `begin` with the run `parent`, as far as both reach."""
    found = Comparison(begin)
    _note_versions(branch, parent, found)
    _compare_records(branch, parent, found)
    mine, theirs = all_checkpoints(branch), all_checkpoints(parent)
    for step in sorted(set(mine) & set(theirs)):
        if step > begin:
            _compare_states(mine[step], theirs[step], step, found)
    return found


def _note_versions(branch: Path, parent: Path, found: Comparison) -> None:
    """Bits are promised within one version of the program and of torch."""
    import json

    facts = [run / "run.json" for run in (branch, parent)]
    one, other = (json.loads(path.read_text()) if path.is_file() else {} for path in facts)
    for name in ("commit", "versions"):
        if one.get(name) != other.get(name):
            found.notes.append(f"note: {name} is {one.get(name)} here and {other.get(name)} in the parent's run.json.")


def _leave_out_unshared(mine: pd.DataFrame, theirs: pd.DataFrame, found: Comparison) -> list[pd.DataFrame]:
    """Both records without the quantities that only one of them holds at all."""
    names = [set(record.index.unique("name")) for record in (mine, theirs)]
    for whose, only in (("branch", names[0] - names[1]), ("parent", names[1] - names[0])):
        if only:
            few = ", ".join(sorted(only)[:3]) + (", ..." if len(only) > 3 else "")
            found.notes.append(f"not compared: {len(only)} quantities that the {whose} alone records ({few}).")
    shared = names[0] & names[1]
    return [record[record.index.get_level_values("name").isin(shared)] for record in (mine, theirs)]


def _compare_records(branch: Path, parent: Path, found: Comparison) -> None:
    import numpy as np

    mine, theirs = _series(branch, found.begin), _series(parent, found.begin)
    if not len(mine) or not len(theirs):
        return
    mine, theirs = _leave_out_unshared(mine, theirs, found)
    if not len(mine) or not len(theirs):
        return
    found.last = int(min(mine.index.get_level_values("step").max(), theirs.index.get_level_values("step").max()))
    both = mine.add_suffix("_branch").join(theirs.add_suffix("_parent"), how="outer")
    both = both[both.index.get_level_values("step") <= found.last]
    names = both.index.get_level_values("name")
    one, other = both["value_branch"].to_numpy(), both["value_parent"].to_numpy()
    # A NaN that was recorded is data and equal to another; one that stands for a missing number is not.
    missing = both["there_branch"].isna().to_numpy() | both["there_parent"].isna().to_numpy()
    same = ((one == other) | (np.isnan(one) & np.isnan(other))) & ~missing
    singular = np.array([bool(SINGULAR.match(name)) for name in names], dtype=bool)
    small = np.array([bool(RESIDUAL.match(name)) for name in names], dtype=bool) & (one < NEGLIGIBLE)
    allowed = ~missing & (
        (singular & (np.abs(one - other) <= _allowance(both, other))) | (small & (other < NEGLIGIBLE))
    )
    found.numbers, found.singular_values = int((~singular).sum()), int(singular.sum())
    found.beyond_bits = int((allowed & ~same & singular).sum())
    for position in np.flatnonzero(~same & ~allowed):
        step, name = both.index[position]
        if missing[position]:
            where = "the parent" if both["there_branch"].isna().iloc[position] else "the branch"
            found.differences.append(f"step {step}: {name} is recorded by {where} alone")
        else:
            found.differences.append(
                f"step {step}: {name} is {float(one[position])}, the parent's {float(other[position])}"
            )


def _allowance(both: pd.DataFrame, values: Any) -> Any:
    """By how much two estimates of one singular value may differ: twice the residual (in units of sigma_0)."""
    import numpy as np

    steps, names = both.index.get_level_values("step"), both.index.get_level_values("name")
    residuals = both["value_parent"]
    residuals = residuals[names.str.startswith("residual/")]
    lookup = dict(zip(residuals.index, residuals, strict=True))
    keys = [(step, "residual/" + name.partition("/")[2]) for step, name in zip(steps, names, strict=True)]
    return 2 * np.array([lookup.get(key, 0.0) for key in keys]) * np.abs(values)


def _series(run: Path, begin: int) -> pd.DataFrame:
    """The record after step `begin`, one row a (step, name)."""
    from spectra.records import read_record

    record = read_record(run)
    names = record["name"].astype(str)
    record = record[(record["step"] > begin) & ~names.str.startswith(NOT_COMPARED)]
    record = record.assign(name=record["name"].astype(str), there=True)
    return record.set_index(["step", "name"])


def _compare_states(mine: Path, theirs: Path, step: int, found: Comparison) -> None:
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
