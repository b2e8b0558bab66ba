"""A checkpoint of another program, read and renamed: what every layout comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.errors import UserError

if TYPE_CHECKING:  # naming the layouts, as help does, does not wait for torch
    from torch import Tensor


@dataclass
class ForeignCheckpoint:
    """What was found in the files of another program, in this program's names."""

    kind: str
    """The layout's name."""
    files: list[Path]
    networks: dict[str, dict[str, Tensor]]
    """`G`, `D`, `G_ema`, as far as they are there: tensors by the names that a run's have."""
    moments: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Of `G` and `D`, where there: `PARAMETER.exp_avg`, `PARAMETER.exp_avg_sq` and `PARAMETER.step`."""
    step: int | None = None
    """Finished G steps; None: the files do not say."""
    fields: dict[str, Any] = field(default_factory=dict)
    """The configuration's fields that the files decide, by dotted name."""
    assumed: dict[str, Any] = field(default_factory=dict)
    """Fields that no file says, with what is taken for them."""
    differences: list[str] = field(default_factory=list)
    """How that program trains, where this one does not do the same."""
    others: dict[str, Tensor] = field(default_factory=dict)
    """Further tensors, kept in the checkpoint under these names."""

    @property
    def trains(self) -> bool:
        """Whether all that training needs is there: both networks and both optimizers."""
        return {"G", "D"} <= self.networks.keys() and {"G", "D"} <= self.moments.keys()


def cannot_import(path: Path | str, what: str, way: str) -> UserError:
    """The error for a checkpoint that cannot become a run: what stands against it, and what to do."""
    return UserError(f"{path} cannot be imported: {what}. {way}")


@dataclass(frozen=True)
class ForeignLayout:
    """A program's way of saving a model."""

    kind: str
    """Its name on the command line."""
    is_here: Callable[[Path], bool]
    """Whether a folder or a file is of this layout, by its files' names."""
    read: Callable[[Path, str | None, bool], ForeignCheckpoint]
    """Read (source, which of several states, whether with the optimizers). Raises `UserError` where it does not map."""
