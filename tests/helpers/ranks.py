"""Starts several ranks on this machine for a test."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

PRELOAD = [
    "torch._dynamo",
    "biggan.training.trainer",
    "biggan.run.session",
    "biggan.cli.options",
    "biggan.evaluation.pictures.grids",
    "spectra.draw.panels",
]
PRELOAD += ["pandas", "pyarrow", "jsonargparse", "safetensors.torch", "PIL.Image", "PIL.ImageDraw", "PIL.ImageFont"]


def on_ranks(count: int, function: Callable[..., Any], *arguments: Any, dying: tuple[int, ...] = ()) -> list[Any]:
    """What `function(*arguments)`, of a module that can be imported, returns on each of `count` ranks over gloo.

    Ranks find in their environment what torchrun would put there, and have met. The processes are forked from one that
    has torch: importing it in each would take seconds. Raises `AssertionError` with the traceback of a rank that
    failed, or that ended without a word and is not one of `dying`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    port = free_port()
    children = [
        context.Process(target=_enter, args=(rank, count, port, pipes[rank][1], function, arguments), daemon=True)
        for rank in range(count)
    ]
    for child in children:
        child.start()
    for _, sender in pipes:
        sender.close()
    results = [_received(receiver) for receiver, _ in pipes]
    for child in children:
        child.join(5)
        child.kill()
    failed = [
        f"rank {rank}: {value}"
        for rank, (status, value) in enumerate(results)
        if status != "done" and not (status == "gone" and rank in dying)
    ]
    assert not failed, "\n".join(failed)
    return [value for _, value in results]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _received(receiver: Connection) -> tuple[str, Any]:
    try:
        return receiver.recv()
    except EOFError:
        return "gone", None


def _enter(rank: int, count: int, port: int, pipe: Connection, function: Callable[..., Any], arguments: tuple) -> None:
    import torch

    from biggan.distributed.launch import processes

    torch.set_num_threads(1)
    local = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in local.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    try:
        with processes():
            found = function(*arguments)
        pipe.send(("done", found))
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))


def command(line: list[str]) -> tuple[int, str, str]:
    """`biggan-train` on a rank that has met the others: its exit code, output and errors."""
    from biggan.cli.app import guarded
    from biggan.cli.train import _train_on_ranks

    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        code = guarded("biggan-train", _train_on_ranks, line)
    return code, out.getvalue(), errors.getvalue()


def two_processes(command: list[str]) -> list[subprocess.CompletedProcess]:
    """The command on two gloo ranks, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", *command], env=environment | {"RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    found = [(child, *child.communicate()) for child in children]
    assert all(child.returncode == 0 for child, *_ in found), found
    return [subprocess.CompletedProcess(c.args, c.returncode, out, error) for c, out, error in found]
