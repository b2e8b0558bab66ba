"""A monitored run killed with -9 at random moments: at most the last second and the step in progress are lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import spectra
from spectra.record.segments import FLUSH_SECONDS

CHILD = """
import sys, time, torch, spectra
torch.set_num_threads(1)
torch.manual_seed(0)
net = torch.nn.Linear(6, 5)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
monitor = spectra.Monitor({"net": net}, sys.argv[1], every=3)
for step in range(1, 10**9):
    monitor.before_update("net")
    optimizer.zero_grad()
    loss = net(torch.ones(6)).square().sum()
    loss.backward()
    monitor.after_backward("net")
    optimizer.step()
    monitor.after_step(step, {"loss": loss.item(), "step": float(step)})
    print(step, time.time(), flush=True)
    time.sleep(0.002)
"""


def kill_and_compare(run: Path, seconds: float) -> None:
    """Kill the child so long after its first step, and compare what it said with what can be read."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(run)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = [child.stdout.readline().split()]
    time.sleep(seconds)
    killed = time.time()
    os.kill(child.pid, signal.SIGKILL)
    said += [line.split() for line in child.communicate()[0].splitlines() if len(line.split()) == 2]
    assert child.returncode == -signal.SIGKILL
    frames = spectra.load(run)
    steps = frames["scalars"].query("name == 'step'")
    assert (
        steps.value.tolist() == steps.step.tolist() == list(range(1, len(steps) + 1))
    )  # whole, in order, no step twice
    finished = {int(step): float(when) for step, when in said}
    assert len(steps) <= max(finished) + 1  # that in progress may be there already
    # The writer's second passes between two flushes; a busy machine's thread may come a little late.
    must = [step for step, when in finished.items() if when < killed - FLUSH_SECONDS - SLACK]
    assert len(steps) >= max(must, default=0)
    measured = frames["spectra"].step.to_numpy()
    assert (np.diff(measured) == 3).all()
    assert len(measured) >= len(steps) // 3 - 1


SLACK = 2.0  # seconds that a crowded machine may keep the writer's thread waiting


def test_a_killed_record_is_whole_up_to_its_last_second(tmp_path: Path) -> None:
    kill_and_compare(tmp_path, random.Random(0).uniform(0.0, 4.5))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 20))
def test_twenty_killed_records_are_whole(tmp_path: Path, seed: int) -> None:
    kill_and_compare(tmp_path, random.Random(seed).uniform(0.0, 6.0))
