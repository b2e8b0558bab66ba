"""A monitored run killed with -9 at random moments: nothing is lost of what was flushed, which happens by itself."""

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
from spectra.record.segments import RecordWriter, read_record

CHILD = """
import sys, time, torch, spectra
from spectra.record.segments import RecordWriter

flush = RecordWriter.flush

def loud(writer):
    last = writer._steps[-1] if writer._steps else 0
    flush(writer)
    sys.stdout.write(f"flushed {last}\\n")
    sys.stdout.flush()

RecordWriter.flush = loud
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
    sys.stdout.write(f"step {step}\\n")
    sys.stdout.flush()
    time.sleep(0.002)
"""


def kill_and_compare(run: Path, seconds: float) -> None:
    """Kill the child so long after its first step, and compare what it said with what can be read."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(run)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = [child.stdout.readline()]
    time.sleep(seconds)
    os.kill(child.pid, signal.SIGKILL)
    said += [line for line in child.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
    assert child.returncode == -signal.SIGKILL
    told = {kind: [int(n) for k, n in map(str.split, said) if k == kind] for kind in ("step", "flushed")}
    frames = spectra.load(run)
    steps = frames["scalars"].query("name == 'step'")
    assert (
        steps.value.tolist() == steps.step.tolist() == list(range(1, len(steps) + 1))
    )  # whole, in order, no step twice
    assert max(told["flushed"], default=0) <= len(steps) <= max(told["step"], default=0) + 1  # one may be in progress
    measured = frames["spectra"].step.to_numpy()
    assert (np.diff(measured) == 3).all()
    assert len(measured) >= len(steps) // 3 - 1


def test_rows_reach_the_disk_by_themselves(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, 0)
    writer.append(1, {"a": 1.0})
    while (read := read_record(tmp_path)).empty:  # nothing else is written, and no flush is asked for
        time.sleep(0.05)
    assert (read.step.tolist(), read.value.tolist()) == ([1], [1.0])
    writer.close()


@pytest.mark.slow  # test_segments.py kills a writer
def test_a_killed_record_is_whole_up_to_its_last_flush(tmp_path: Path) -> None:
    kill_and_compare(tmp_path, 1.3)  # it flushes once a second


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 20))
def test_twenty_killed_records_are_whole(tmp_path: Path, seed: int) -> None:
    kill_and_compare(tmp_path, random.Random(seed).uniform(0.0, 6.0))
