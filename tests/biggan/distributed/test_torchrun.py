"""torchrun itself: a rank killed with -9, restarts, an address in use. Starts torch several times, so it is slow."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ranks import free_port
from tiny import TINY, assert_same_state

from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from biggan.run.directory import RunDirectory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

OPTIONS = [*TINY, "--checkpoint.every=4", "--monitor=none", "--quiet"]


HERE = ("--standalone", "--nproc-per-node=2")


def torchrun(*line: str, restarts: int = 0, hosts: tuple[str, ...] = HERE, **how: Any) -> subprocess.Popen:
    # torchrun takes --monitor for its own, unless it stands behind --
    start = [sys.executable, "-m", "torch.distributed.run", *hosts]
    return subprocess.Popen(
        [*start, f"--max-restarts={restarts}", "-m", "biggan.train", "--", *line, *OPTIONS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **how,
    )


def wait_for_checkpoint(launcher: subprocess.Popen, run: Path) -> None:
    while not checkpoint_paths(run):
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.05)


def ranks_of(launcher: subprocess.Popen) -> dict[bytes, int]:
    """The process of each rank, by its number."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rsplit(")", 1)[1].split()[1]
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == str(launcher.pid):
            found |= {one[5:]: int(process.name) for one in variables if one.startswith(b"RANK=")}
    return found


def kill_rank_1(launcher: subprocess.Popen, run: Path) -> None:
    """SIGKILL the process of rank 1 as soon as the first checkpoint is there."""
    wait_for_checkpoint(launcher, run)
    os.kill(ranks_of(launcher)[b"1"], signal.SIGKILL)


def final(run: Path) -> dict:
    return read_checkpoint(checkpoint_paths(run)[-1]).tensors


def test_killed_and_restarted_equals_an_unbroken_run(tmp_path: Path) -> None:
    whole = torchrun("--out", str(tmp_path / "whole"), "--steps=40")
    assert whole.wait() == 0, whole.communicate()
    killed = torchrun("--out", str(tmp_path / "killed"), "--steps=40", restarts=1)
    kill_rank_1(killed, tmp_path / "killed")
    output, _ = killed.communicate()
    assert killed.returncode == 0, output
    assert "rank 0 has lost another rank" in output
    names = [event["event"] for event in RunDirectory(tmp_path / "killed").events()]
    assert names.count("started") == names.count("resumed") == names.count("finished") == 1
    assert_same_state(final(tmp_path / "whole"), final(tmp_path / "killed"))


def test_two_launchers_are_one_run(tmp_path: Path) -> None:
    """As on two machines: each starts one of the two processes, and they meet at an address."""
    place = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=run"]
    hosts = (*place, f"--rdzv-endpoint=localhost:{free_port()}")
    two = [torchrun("--out", str(tmp_path / "two"), "--steps=4", hosts=hosts) for _ in range(2)]
    outputs = [launcher.communicate()[0] for launcher in two]
    assert [launcher.returncode for launcher in two] == [0, 0], outputs
    assert json.loads((tmp_path / "two/run.json").read_text())["ranks"] == 2
    for name, line in (("two", ["--resume", str(tmp_path / "two")]), ("one", ["--out", str(tmp_path / "one")])):
        launcher = torchrun(*line, "--steps=8")
        assert launcher.wait() == 0, (name, launcher.communicate())
    assert_same_state(final(tmp_path / "two"), final(tmp_path / "one"))


def test_ctrl_c_reaches_every_process_twice_and_saves_the_step(tmp_path: Path) -> None:
    """From the terminal, and from torchrun, which passes it on."""
    job = torchrun("--out", str(tmp_path / "run"), "--steps=100000", start_new_session=True)
    wait_for_checkpoint(job, tmp_path / "run")
    os.killpg(job.pid, signal.SIGINT)
    output, _ = job.communicate()
    last = RunDirectory(tmp_path / "run").events()[-1]
    assert last["event"] == "interrupted", output
    assert checkpoint_paths(tmp_path / "run")[-1].name == f"step-{last['step']:08d}.safetensors"
    assert "stopped at once" not in output


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1], ids=lambda one: one.name)
def test_a_signal_to_the_job_saves_the_step(number: signal.Signals, tmp_path: Path) -> None:
    """torchrun passes SIGHUP on; SIGUSR1, which a batch system sends to every process of a job, ends it alone."""
    job = torchrun("--out", str(tmp_path / "run"), "--steps=100000", start_new_session=True)
    wait_for_checkpoint(job, tmp_path / "run")
    os.killpg(job.pid, number)
    for rank in ranks_of(job).values():  # of sessions of their own in newer versions of torch
        with suppress(ProcessLookupError):
            os.kill(rank, number)
    output, _ = job.communicate()
    last = RunDirectory(tmp_path / "run").events()[-1]
    assert last["event"] == "interrupted", output
    assert checkpoint_paths(tmp_path / "run")[-1].name == f"step-{last['step']:08d}.safetensors"


def test_ranks_notice_that_torchrun_was_killed(tmp_path: Path) -> None:
    """They save and end by themselves, and nobody holds the lock."""
    run = tmp_path / "run"
    job = torchrun("--out", str(run), "--steps=100000")
    wait_for_checkpoint(job, run)
    ranks = ranks_of(job).values()
    assert len(ranks) == 2
    job.kill()
    output, _ = job.communicate(timeout=120)  # until the ranks have closed the pipe
    last = RunDirectory(run).events()[-1]
    assert last["event"] == "interrupted", output
    assert checkpoint_paths(run)[-1].name == f"step-{last['step']:08d}.safetensors"
    assert "Traceback" not in output
    directory = RunDirectory(run)
    directory.lock()
    directory.unlock()


def test_a_killed_rank_ends_the_job_with_its_name(tmp_path: Path) -> None:
    job = torchrun("--out", str(tmp_path / "run"), "--steps=100000")
    kill_rank_1(job, tmp_path / "run")
    output, _ = job.communicate()
    assert job.returncode == 1
    assert "Signal 9 (SIGKILL) received" in output
    cause = output[output.index("Root Cause") :]
    assert "rank      : 1 " in cause, output


def test_an_address_in_use_is_refused(tmp_path: Path) -> None:
    """Rank 0 of a launcher that sets the environment itself."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        done = subprocess.run(
            [sys.executable, "-m", "biggan.train", "--out", str(tmp_path / "run"), *OPTIONS],
            env={**os.environ, **place, "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2, done.stderr
    assert "the address is in use" in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()
