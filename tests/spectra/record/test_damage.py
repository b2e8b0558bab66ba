"""A damaged record: what cannot be trusted is left out and said, and the rest is what was written."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import spectra
from spectra.monitor.vectors import Directions, read_directions, write_directions
from spectra.record.damage import RecordDamage
from spectra.record.events import append_event
from spectra.record.segments import RecordWriter, read_record, record_damage, segments, truncate_record

LAYERS = {f"G.layer{i}": {"network": "G", "kind": "conv", "depth": i, "shape": [8, 9]} for i in range(3)}
LEGEND = {"layers": LAYERS, "parameters": {}, "frames": {"sigma0": "spectra", "sigma1": "spectra"}}
BATCHES, IN_BATCH = 6, 4


def write(run: Path, compression: str | None = None) -> dict[tuple[int, str], float]:
    """A segment of six batches of four steps; names are new in the first batch and in the fourth."""
    writer, rows = RecordWriter(run, 0, LEGEND, compression=compression), {}
    for step in range(1, BATCHES * IN_BATCH + 1):
        values = {f"sigma{k}/{layer}": math.sqrt(step + k) for layer in LAYERS for k in (0, 1)} | {"loss/G": math.nan}
        if step > 12:
            values["late"] = -float(step)
        writer.append(step, values)
        rows |= {(step, name): value for name, value in values.items()}
        if step % IN_BATCH == 0:
            writer.flush()
    writer.close()
    return rows


def read_all(run: Path, *, frames: bool = True) -> tuple[dict[tuple[int, str], float], list[str]]:
    """The rows and the warnings; the frames are made too."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        record = read_record(run)
    if frames:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert len(spectra.load(run)["scalars"]) <= len(record)
    rows = zip(record.step.tolist(), record.name.astype(str).tolist(), record.value.tolist(), strict=True)
    return {(step, name): value for step, name, value in rows}, [str(one.message) for one in said]


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def flips(rng: random.Random, data: bytes) -> bytes:
    """One to three flipped bits, a byte, a run of bytes, a cut-out or zeroed piece."""
    out = bytearray(data)
    at = rng.randrange(len(out))
    kind = rng.randrange(5)
    if kind == 0:
        for _ in range(rng.randint(1, 3)):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        out[at] = rng.randrange(256)
    elif kind == 2:
        out[at : at + 16] = rng.randbytes(len(out[at : at + 16]))
    elif kind == 3:
        del out[at : at + rng.choice([1, 8, 64])]
    else:
        out[at : at + 64] = bytes(len(out[at : at + 64]))
    return bytes(out)


def fuzz(run: Path, seed: int, count: int, compression: str | None) -> int:
    """Damage the segment `count` times; returns how often rows were left out."""
    rows = write(run, compression)
    (segment,) = segments(run)
    whole, rng, lost = segment.read_bytes(), random.Random(seed), 0
    for turn in range(count):
        damaged = flips(rng, whole)
        segment.write_bytes(damaged)
        found, said = read_all(run, frames=turn % 4 == 0)
        assert all(key in rows and same(value, rows[key]) for key, value in found.items()), "other numbers"
        if len(found) < len(rows) and not whole.startswith(damaged):  # a torn end is none
            lost += 1
            assert said, "left out in silence"
            assert all(str(segment) in words for words in said)
    segment.write_bytes(whole)
    return lost


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_damage_gives_no_traceback_and_no_other_number(tmp_path: Path, compression: str | None) -> None:
    assert fuzz(tmp_path, 16, 120, compression) > 40


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_thousands_of_damages(tmp_path: Path, seed: int, compression: str | None) -> None:
    assert fuzz(tmp_path, seed, 400, compression) > 100


def _batch_of(data: bytes, number: int) -> tuple[int, int]:
    """Where the message of a batch lies, counted from 1."""
    source = pa.BufferReader(data)
    while number:
        begin = source.tell()
        number -= pa.ipc.read_message(source).type == "record batch"
    return begin, source.tell()


@pytest.mark.parametrize("number", [1, 3, 4, 6])
@pytest.mark.parametrize("where", ["length", "header", "body"])
def test_one_damaged_batch_is_left_out_and_named(tmp_path: Path, number: int, where: str) -> None:
    """Of 24 steps in six batches the four of one batch are gone, and the names that were new in it are known."""
    rows = write(tmp_path)
    (segment,) = segments(tmp_path)
    data = bytearray(segment.read_bytes())
    begin, end = _batch_of(data, number)
    at, length = {"length": (begin + 5, 1), "header": (begin + 8, 16), "body": (end - 9, 1)}[where]
    data[at : at + length] = bytes(one ^ 0x40 for one in data[at : at + length])
    segment.write_bytes(data)
    found, said = read_all(tmp_path)
    gone = set(range(IN_BATCH * (number - 1) + 1, IN_BATCH * number + 1))
    assert {step for step, _ in rows} - {step for step, _ in found} == gone
    assert len(found) == sum(step not in gone for step, _ in rows)  # every row of the other batches
    since, until = IN_BATCH * (number - 1), IN_BATCH * number + 1
    which = f"batch {number} (within steps {since} to {until})"
    last = f"the end from batch {number} on (within steps {since} to the last)"
    assert f"{segment}: {which if number < BATCHES else last} cannot be read, and is left out" == said[0]
    assert record_damage(tmp_path) == said


def test_a_damaged_legend_is_said_and_costs_no_number(tmp_path: Path) -> None:
    rows = write(tmp_path)
    (segment,) = segments(tmp_path)
    data = segment.read_bytes()
    segment.write_bytes(data.replace(b'"depth": 2', b'"depth": 7', 1))
    found, said = read_all(tmp_path)
    assert len(found) == len(rows)
    assert "kinds, shapes and depths" in said[0]


def test_a_resume_rewrites_what_is_sound_and_keeps_the_damaged_segment(tmp_path: Path) -> None:
    rows = write(tmp_path)
    (segment,) = segments(tmp_path)
    data = bytearray(segment.read_bytes())
    data[_batch_of(data, 2)[1] - 9] ^= 1
    segment.write_bytes(data)
    with pytest.warns(RecordDamage, match="batch 2"):
        truncate_record(tmp_path, 18)
    found, said = read_all(tmp_path)
    assert not said
    assert found.keys() == {(s, n) for s, n in rows if s <= 18 and not 4 < s <= 8}
    assert segment.with_name(f"{segment.name}.damaged").read_bytes() == data


def _old_writer(run: Path) -> None:
    """A segment as it was written before batches had checksums."""
    schema = pa.schema(
        [("step", pa.int64()), ("name", pa.dictionary(pa.int32(), pa.string())), ("value", pa.float64())]
    )
    (run / "records").mkdir()
    with pa.ipc.new_stream(str(run / "records" / "spectra-00000000.arrow"), schema) as stream:
        for step in range(1, 9):
            names = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(["loss/G", "sigma0/D.a"]))
            stream.write_batch(pa.record_batch([pa.array([step] * 2), names, pa.array([step / 7, 1.0])], schema=schema))


def test_records_without_checksums_are_read_and_their_faults_are_no_traceback(tmp_path: Path) -> None:
    _old_writer(tmp_path)
    found, said = read_all(tmp_path)
    assert (len(found), said) == (16, [])
    assert found[3, "loss/G"] == 3 / 7
    (segment,) = segments(tmp_path)
    whole, rng = segment.read_bytes(), random.Random(3)
    for _ in range(60):
        segment.write_bytes(flips(rng, whole))
        read_all(tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            truncate_record(tmp_path, 5)
    segment.write_bytes(whole[:-40])
    assert read_all(tmp_path)[1] == []  # a torn end


def test_every_byte_that_a_kill_can_leave_is_read(tmp_path: Path) -> None:
    rows = write(tmp_path)
    (segment,) = segments(tmp_path)
    whole = segment.read_bytes()[:-8]  # a killed writer does not end the stream
    for length in range(0, len(whole), 113):
        segment.write_bytes(whole[:length])
        found, said = read_all(tmp_path, frames=False)
        assert said == []
        assert all(same(value, rows[key]) for key, value in found.items())
        assert len({step for step, _ in found}) % IN_BATCH == 0


def event(run: Path, kind: str, step: int) -> None:
    append_event(run, {"event": kind, "step": step, "time": 1.0})


@pytest.mark.parametrize("kind", ["finished", "interrupted", "paused", "stopped"])
def test_a_cut_of_a_closed_record_is_said(tmp_path: Path, kind: str) -> None:
    """At every length: a record whose session ended by itself lacks nothing in silence."""
    write(tmp_path)
    event(tmp_path, "started", 0)
    event(tmp_path, kind, BATCHES * IN_BATCH)
    (segment,) = segments(tmp_path)
    whole = segment.read_bytes()
    assert read_all(tmp_path)[1] == []
    for length in [*range(0, len(whole), 211), *range(len(whole) - 9, len(whole))]:
        segment.write_bytes(whole[:length])
        assert any(str(segment) in words for words in read_all(tmp_path, frames=False)[1]), length
    segment.write_bytes(whole[: _batch_of(whole, 5)[1]])
    assert record_damage(tmp_path) == [f"{segment} is cut at its end: what followed step 20 is missing"]
    event(tmp_path, "checkpoint", BATCHES * IN_BATCH)  # events after the end change nothing
    assert len(record_damage(tmp_path)) == 1


def test_a_record_that_a_kill_left_open_is_whole_once_the_run_goes_on(tmp_path: Path) -> None:
    """The session after a kill closes what was open; a later cut of it is then seen, at whatever the run is."""
    write(tmp_path)
    event(tmp_path, "started", 0)
    (segment,) = segments(tmp_path)
    segment.write_bytes(segment.read_bytes()[:-8])
    assert read_all(tmp_path)[1] == []  # killed, or at work
    truncate_record(tmp_path, 24)
    event(tmp_path, "resumed", 24)
    RecordWriter(tmp_path, 24).close()
    assert read_all(tmp_path)[1] == []
    segment.write_bytes(segment.read_bytes()[:-300])
    assert read_all(tmp_path)[1] == [f"{segment} is cut at its end: what followed step 20 is missing"]


def test_a_session_that_goes_on_is_not_cut(tmp_path: Path) -> None:
    write(tmp_path)
    event(tmp_path, "started", 0)
    event(tmp_path, "paused", 24)
    writer = RecordWriter(tmp_path, 24)  # in the same process, which writes no `resumed`
    writer.append(25, {"loss/G": 1.0})
    writer.flush()
    assert record_damage(tmp_path) == []
    writer.close()


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b[:-6] + b"\x01" + b[-5:]])
def test_damaged_singular_vectors_are_not_compared_with(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    import torch

    (tmp_path / "records").mkdir()
    one = Directions(torch.eye(4)[:, :2] * 0.5, torch.eye(3)[:, :2] * 0.5)
    write_directions(tmp_path, 3, {"G.a": one})
    assert np.array_equal(read_directions(tmp_path, 3)["G.a"].left, one.left)
    path = tmp_path / "records" / "vectors-00000003.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert read_directions(tmp_path, 3) == {}
