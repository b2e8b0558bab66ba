"""Commands that are killed, in a process forked from one that has torch already: importing it takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import signal

from ranks import PRELOAD


def kill_after_step(step: int, program: str, *arguments: str) -> None:
    """Run a command, such as biggan-train, in a process that dies of SIGKILL as soon as `step` is done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    child = context.Process(target=_run_to, args=(step, program, arguments), daemon=False)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def _run_to(step: int, program: str, arguments: tuple[str, ...]) -> None:
    import torch
    from programs import PROGRAMS

    from biggan.observers import progress

    class Deadly(progress.Observer):
        def after_step(self, done: int, stats: object) -> None:
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    progress.Progress = Deadly
    PROGRAMS[program](list(arguments))
