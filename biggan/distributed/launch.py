"""Being one of several processes that torchrun started: how they meet and part, and which launch this is.

`torchrun --nproc-per-node N -m biggan.train ...`, or any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK,
LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Without these (or with one process) nothing here does anything. Light to
import: the command line is parsed before torch is loaded.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from biggan.errors import ReportedByOtherRank, UserError

MEETING = timedelta(minutes=2)  # for all processes to be there
WAITING = timedelta(hours=2)  # in one exchange: the others wait while rank 0 saves and evaluates
SURVIVOR_SECONDS = 10.0


class LostRank(Exception):
    """Another rank has ended, or cannot be reached."""


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
    # DDP would warn, in two lines a process, of an option that is meant (biggan/distributed/gradients.py)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

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
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    wanted = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
    if missing := [name for name in wanted if not os.environ.get(name)]:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} in the environment, and {', '.join(missing)} is not set there. "
            f"Start several processes with torchrun --nproc-per-node N -m biggan.train ..., or unset WORLD_SIZE."
        )
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store, rank, size = next(rendezvous("env://", timeout=MEETING))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        gpus = torch.cuda.device_count()
        if local < gpus:
            torch.cuda.set_device(local)
        # torchrun may keep one store over its restarts, with the addresses of processes that are no more
        store = PrefixStore(f"attempt-{restarts()}", store)
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


def restarts() -> int:
    """How often torchrun has started its processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)


_launcher = os.getppid()


def _remember_the_launcher() -> None:
    global _launcher
    _launcher = os.getppid()


os.register_at_fork(after_in_child=_remember_the_launcher)


def launcher_is_gone() -> bool:
    """Whether torchrun started this process and has been killed since: nobody would stop or restart it any more.

    Not noticed where a script of its own stands between the two.
    """
    return "TORCHELASTIC_RUN_ID" in os.environ and os.getppid() != _launcher


def launch_id() -> str | None:
    """What tells this launch from others and is the same after torchrun restarted its processes; none without it."""
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if run is None else f"{run}@{socket.gethostname()}:{os.getppid()}"
