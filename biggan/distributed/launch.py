"""Being one of several processes that torchrun started: how they meet, agree before training, and report a loss.

`torchrun --nproc-per-node N -m biggan.train ...`, or any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK,
LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Without these (or with one process) nothing here does anything.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from biggan.errors import ReportedByOtherRank, UserError

MEETING = timedelta(minutes=2)  # for all processes to be there
WAITING = timedelta(hours=2)  # in one exchange: the others wait while rank 0 saves and evaluates
SURVIVOR_SECONDS = 10.0


def is_launched() -> bool:
    """Whether the environment says that this is one of several processes."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1")


@contextmanager
def processes() -> Iterator[None]:
    """Meet the others, do what is inside together, and part.

    A rank that fails ends the others: at their next exchange they find it gone, say so, and wait a little before they
    end, so that a launcher sees the rank that failed first, and shows its error. Raises `UserError` where the processes
    cannot meet.
    """
    if not is_launched():
        yield
        return
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    from biggan.distributed.ranks import LostRank

    report = get_error_handler()  # writes where torchrun reads the error that it shows at the end
    report.initialize()
    _meet()
    try:
        yield
    except LostRank as error:
        print(
            f"biggan-train: {error}. Earlier checkpoints are whole; go on with --resume.", file=sys.stderr, flush=True
        )
        time.sleep(SURVIVOR_SECONDS)
        raise SystemExit(1) from None
    except ReportedByOtherRank:
        raise
    except Exception as error:
        report.record_exception(error)
        raise
    _part()


def _meet() -> None:
    import torch
    import torch.distributed as dist

    wanted = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
    if missing := [name for name in wanted if not os.environ.get(name)]:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} in the environment, and {', '.join(missing)} is not set there. "
            f"Start several processes with torchrun --nproc-per-node N -m biggan.train ..., or unset WORLD_SIZE."
        )
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=MEETING))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        gpus = torch.cuda.device_count()
        if local < gpus:
            torch.cuda.set_device(local)
        # torchrun may keep one store over its restarts, with the addresses of processes that are no more
        store = dist.PrefixStore(f"attempt-{_restarts()}", store)
        store.set_timeout(WAITING)
        backend = "cpu:gloo,cuda:nccl" if local < gpus and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=WAITING)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        hint = "the address is in use: give another --master-port, or torchrun --standalone, which finds a free one"
        if "EADDRINUSE" not in reason and "in use" not in reason:
            hint = "check that every process was started, and that the address can be reached from each machine"
        raise UserError(
            f"the {os.environ['WORLD_SIZE']} processes cannot meet at {place} (MASTER_ADDR, MASTER_PORT): {reason}. "
            f"Probably {hint}."
        ) from error


def _part() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def all_ranks_or_none() -> Iterator[None]:
    """What is inside succeeds on every rank or fails on every one. It may not hold an exchange between ranks.

    The first rank with an error that is the user's to mend raises it, the others `ReportedByOtherRank`.
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
    from biggan.distributed.ranks import gather_objects, rank

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
    from biggan.distributed.ranks import gather_objects

    first, *others = gather_objects(mine)
    for number, other in enumerate(others, start=1):
        if different := [name for name in sorted(first.keys() | other.keys()) if first.get(name) != other.get(name)]:
            listed = "; ".join(f"{name}: {first.get(name)!r} on rank 0, {other.get(name)!r}" for name in different[:5])
            more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
            refuse(f"rank {number} was started with {what} than rank 0: {listed}{more}. Give every process the same.")


def _restarts() -> int:
    """How often torchrun has started its processes anew."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)


def launch_id() -> str | None:
    """What tells this launch from others and is the same after torchrun restarted its processes; none without it."""
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if run is None else f"{run}@{socket.gethostname()}:{os.getppid()}"


def run_to_continue(out: str | None, preset: str) -> Path | None:
    """The run that this launch began before torchrun restarted its processes (`--max-restarts`); else none.

    Rank 0 alone looks, so every rank is told the same.
    """
    if _restarts() == 0:
        return None
    from biggan.distributed.ranks import from_main, is_main

    found: Path | None = None
    for path in ([Path(out)] if out else sorted(Path("runs").glob(f"{preset}*"))) if is_main() else ():
        try:
            facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if facts.get("launch") == launch_id():
            found = path
    return from_main(found)
