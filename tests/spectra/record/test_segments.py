"""The record: what is appended is read back, whatever tears it."""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch import nn

from spectra.monitor.monitor import Monitor
from spectra.record.damage import RecordDamage
from spectra.record.segments import RecordWriter, last_step, read_legend, read_record, segments, truncate_record


def write(run: Path, start: int, stop: int, **extra: float) -> None:
    writer = RecordWriter(run, start)
    for step in range(start + 1, stop + 1):
        writer.append(step, {"loss/G": step / 7, "loss/D_real": -step, **extra})
        if step % 2 == 0:
            writer.flush()
    writer.close()


def test_values_and_names_come_back(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, 0)
    writer.append(1, {"a": 0.1})
    writer.flush()
    writer.append(2, {"b": math.nan, "a": math.inf, "c": -math.inf})  # names that come later
    writer.close()
    frame = read_record(tmp_path)
    assert list(frame.columns) == ["step", "name", "value"]
    assert frame.step.tolist() == [1, 2, 2, 2]
    assert frame.name.tolist() == ["a", "b", "a", "c"]
    assert [str(value) for value in frame.value] == ["0.1", "nan", "inf", "-inf"]


def test_no_record_is_an_empty_frame(tmp_path: Path) -> None:
    assert list(read_record(tmp_path).columns) == ["step", "name", "value"]
    assert len(read_record(tmp_path)) == 0


@pytest.mark.parametrize("lost", [1, 40, 1000])
def test_a_torn_end_costs_the_torn_batch_alone(tmp_path: Path, lost: int) -> None:
    write(tmp_path, 0, 40)
    (segment,) = segments(tmp_path)
    whole = read_record(tmp_path)
    segment.write_bytes(segment.read_bytes()[:-lost])
    torn = read_record(tmp_path)
    assert len(whole) * 0.7 < len(torn) <= len(whole)
    assert torn.equals(whole.iloc[: len(torn)])


def test_truncation_drops_later_rows_and_empty_segments(tmp_path: Path) -> None:
    write(tmp_path, 0, 10)
    write(tmp_path, 10, 20, new=1.0)
    write(tmp_path, 20, 30)
    truncate_record(tmp_path, 14)
    frame = read_record(tmp_path)
    assert frame.step.max() == 14
    assert sorted(set(frame.step)) == list(range(1, 15))
    assert [s.name for s in segments(tmp_path)] == ["spectra-00000000.arrow", "spectra-00000010.arrow"]
    write(tmp_path, 14, 16)  # a resumed session has a segment of its own
    frame = read_record(tmp_path)
    assert not frame.duplicated(["step", "name"]).any()
    assert frame.step.is_monotonic_increasing
    truncate_record(tmp_path, 0)
    assert segments(tmp_path) == []


def test_a_killed_writer_has_written_what_is_older_than_two_seconds(tmp_path: Path) -> None:
    """Rows go out without anyone calling flush: the child appends once and sleeps."""
    code = f"""
import time
from pathlib import Path
from spectra.record.segments import RecordWriter
writer = RecordWriter(Path({str(tmp_path)!r}), 0)
writer.append(1, {{"a": 1.0}})
print("appended", flush=True)
time.sleep(600)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    while len(read_record(tmp_path)) == 0:
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert read_record(tmp_path).value.tolist() == [1.0]


def test_a_full_disk_is_an_error_of_the_next_call(tmp_path: Path) -> None:
    code = f"""
import resource, sys, time
from pathlib import Path
from spectra.record.segments import RecordWriter
writer = RecordWriter(Path({str(tmp_path)!r}), 0)
writer.append(1, {{"a": 1.0}})
writer.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
writer.append(2, {{f"b{{i}}": 2.0 for i in range(200)}})
for _ in range(600):
    time.sleep(0.1)
    try:
        writer.append(3, {{"c": 3.0}})
    except OSError as error:
        print(error.errno)
        break
try:
    writer.close()
except OSError:
    print("closed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(errno.EFBIG), "closed"], done.stderr
    assert read_record(tmp_path).value.tolist() == [1.0]


def test_the_legend_survives_truncation_and_a_torn_end(tmp_path: Path) -> None:
    one = {"layers": {"G.a": {"kind": "linear"}}, "frames": {"sigma0": "spectra"}}
    two = {"layers": {"G.a": {"kind": "linear"}}, "frames": {"turn0": "spectra"}}
    for start, legend in ((0, one), (10, two)):
        writer = RecordWriter(tmp_path, start, legend)
        for step in range(start + 1, start + 11):
            writer.append(step, {"sigma0/G.a": 1.0 * step})
            writer.flush()
        writer.close()
    assert read_legend(tmp_path) == one | {"frames": {"sigma0": "spectra", "turn0": "spectra"}}
    truncate_record(tmp_path, 15)
    for segment in segments(tmp_path):
        segment.write_bytes(segment.read_bytes()[:-20])
    with pytest.warns(RecordDamage, match="spectra-00000000.arrow is cut at its end: what followed step 9 is missing"):
        assert read_legend(tmp_path)["frames"] == {"sigma0": "spectra", "turn0": "spectra"}
    with pytest.warns(RecordDamage):
        assert last_step(tmp_path) in (14, 15)


def test_a_record_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path, 0, 4)
    with pytest.raises(ValueError, match=r"another run.*start_step=4"):
        RecordWriter(tmp_path, 0)
    assert read_record(tmp_path).step.max() == 4
    RecordWriter(tmp_path, 4).close()


def test_the_monitor_measures_at_its_schedule(tmp_path: Path) -> None:
    import torch

    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    monitor = Monitor({"net": network}, tmp_path, every=2, probes=["singular_values"])
    for step in range(1, 5):
        monitor.after_step(step, {"loss": 1.0 / step})
    monitor.close()
    frame = read_record(tmp_path)
    assert frame[frame.name == "loss"].step.tolist() == [1, 2, 3, 4]
    assert frame[frame.name == "sigma0/net.0"].step.tolist() == [2, 4]
    expected = torch.linalg.svdvals(network[0].weight.detach().double())
    for index in range(3):
        value = frame[frame.name == f"sigma{index}/net.0"].value.iloc[0]
        assert value == pytest.approx(expected[index].item(), rel=1e-5)
    assert "sigma2/net.2" not in set(frame.name)  # a matrix of two rows has two
