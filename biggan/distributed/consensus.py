"""What ranks settle together: whether to go on, and that all have the same options, data and state.

Light to import: the command line is parsed before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from biggan.distributed.launch import is_launched
from biggan.errors import ReportedByOtherRank, UserError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def all_ranks_or_none() -> Iterator[None]:
    """What is inside succeeds on every rank or fails on every one. It may not hold an exchange between ranks.

    The first rank with an error that is the user's to fix raises it, the others `ReportedByOtherRank`.
    """
    failure: Exception | None = None
    try:
        yield
    except (UserError, OSError) as error:
        if not is_launched():
            raise
        failure = error
    if not is_launched():
        return
    from biggan.distributed.collectives import gather_objects
    from biggan.distributed.ranks import rank

    failed = [number for number, is_bad in enumerate(gather_objects(failure is not None)) if is_bad]
    if failed and (failure is None or rank() != failed[0]):
        raise ReportedByOtherRank(f"rank {failed[0]} has said why.")
    if failure is not None:
        raise failure


def refuse(message: str) -> None:
    """Raise `UserError` on rank 0 and `ReportedByOtherRank` on the others; every rank has found the same."""
    from biggan.distributed.ranks import is_main

    raise UserError(message) if is_main() else ReportedByOtherRank(message)


def check_alike(mine: dict[str, Any], what: str) -> None:
    """Raise, on every rank, where a rank's flat dictionary `mine` differs from rank 0's; says what differs."""
    from biggan.distributed.collectives import gather_objects

    first, *others = gather_objects(mine)
    for number, other in enumerate(others, start=1):
        if different := [name for name in sorted(first.keys() | other.keys()) if first.get(name) != other.get(name)]:
            listed = "; ".join(f"{name}: {first.get(name)!r} on rank 0, {other.get(name)!r}" for name in different[:5])
            more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
            refuse(f"rank {number} was started with {what} than rank 0: {listed}{more}. Give every process the same.")


def check_copies(tensors: Mapping[str, Tensor], when: str) -> None:
    """Raise `UserError`, on every rank, where the ranks' tensors are not the same bit for bit; name what differs."""
    from biggan.distributed.collectives import gather_objects
    from biggan.distributed.ranks import world_size
    from biggan.run.checkpoint import digest

    if world_size() == 1:
        return
    own = {name: digest({name: tensor.detach().cpu()}, {}) for name, tensor in tensors.items()}
    first, *others = gather_objects(own)
    for number, other in enumerate(others, start=1):
        if different := [name for name in first if first[name] != other[name]]:
            refuse(
                f"{when} rank {number}'s copy of the state is not rank 0's: {len(different)} of {len(first)} tensors "
                f"differ, {', '.join(different[:3])} among them. It was not saved, earlier checkpoints are "
                f"whole. Ranks must compute the same bits: give them machines and versions of one kind, and "
                f"--deterministic true."
            )
