"""A segment's batches, each with its checksum: how one is written, and what a damaged segment still holds.

A batch's checksum stands in its message's own metadata, so that any Arrow reader can read a segment. There, the names
that are new since the batch before the last one are repeated, so that one damaged batch does not take the meaning of
the others with it. Segments from before checksums are read up to the first fault that Arrow itself can see.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

LEGEND = b"spectra"  # the key of the legend in the schema's metadata
CHECK = b"spectra.check"  # the key of a checksum: in the schema's metadata of the legend, in a batch's of its rows
_MARKER = b"\xff\xff\xff\xff"  # begins every message of a stream
_END = _MARKER + bytes(4)  # ends a stream that was closed


@dataclass
class Segment:
    """What a segment's file holds: its sound batches, its legend, and what was left out, in words."""

    path: Path
    batches: list[pa.RecordBatch] = field(default_factory=list)
    legend: dict[str, Any] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    is_cut: bool = False
    """Whether the mark is missing that ends a segment whose writer closed it. One without checksums is never cut."""


def segment_schema(legend: Mapping[str, Any] | None) -> pa.Schema:
    """The columns step, name and value, with the legend and its checksum."""
    import pyarrow as pa

    columns = [("step", pa.int64()), ("name", pa.dictionary(pa.int32(), pa.string())), ("value", pa.float64())]
    text = json.dumps(legend).encode() if legend else b""
    check = {CHECK: f"{zlib.crc32(text):08x}"}
    return pa.schema(columns, metadata={LEGEND: text, **check} if legend else check)


class BatchWriter:
    """Writes checked batches to an Arrow stream."""

    def __init__(self, stream: pa.RecordBatchStreamWriter, schema: pa.Schema) -> None:
        self._stream, self._schema = stream, schema
        self._counts = [0, 0]  # the names known before the last batch, and with it
        self._crc = 0  # of all names known with the last batch
        self._number = 1

    def write(self, steps: Sequence[int], codes: Sequence[int], values: Sequence[float], names: Sequence[str]) -> None:
        """Write one batch: row i is `values[i]` of `names[codes[i]]` at `steps[i]`; `names` only grows."""
        import pyarrow as pa

        self._crc = _crc_of_names(names[self._counts[1] :], self._crc)
        known = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string()))
        columns = [pa.array(steps, pa.int64()), known, pa.array(values, pa.float64())]
        batch = pa.record_batch(columns, schema=self._schema)
        first = self._counts[0]
        facts: dict[str, Any] = {"batch": self._number, "rows": _crc_of_rows(batch), "names": self._crc}
        facts |= {"first": first, "new": list(names[first:])}
        text = json.dumps(facts)
        self._stream.write_batch(batch, custom_metadata={CHECK: f"{zlib.crc32(text.encode()):08x}{text}"})
        self._counts, self._number = [self._counts[1], len(names)], self._number + 1


def read_segment(path: Path) -> Segment:
    """The segment's sound batches. A torn end is no damage: a kill tears it, and a writer may be at work."""
    import pyarrow as pa

    segment = Segment(path)
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            segment.is_cut = True
            return segment
        raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data, checked = pa.py_buffer(raw), raw.find(CHECK) >= 0
    segment.is_cut = checked and raw[-len(_END) :] != _END
    try:
        whole = _read_in_order(segment, data, checked=checked)
    except _faults():
        whole = False
    if whole:
        return segment
    if checked:
        return _salvage(path, raw)
    if not _is_torn(data, _end_of_messages(data)):
        last = _last_step(segment.batches)
        where = "" if last is None else f" after batch {len(segment.batches)} (step {last})"
        segment.damage.append(f"{path} is damaged{where}, and what follows is left out")
    return segment


def _faults() -> tuple[type[Exception], ...]:
    """What damaged bytes raise: in Arrow, and where what they say is looked up."""
    import pyarrow as pa

    return (pa.ArrowException, OSError, ValueError, EOFError, MemoryError, KeyError, TypeError, StopIteration)


def _read_in_order(segment: Segment, data: pa.Buffer, *, checked: bool) -> bool:
    """Read until the end or the first fault; returns whether all of it is sound."""
    import pyarrow as pa

    source = pa.BufferReader(data)
    stream = pa.ipc.open_stream(source)
    if not stream.schema.equals(segment_schema(None)):
        return False
    segment.legend, sound = _legend_of(stream.schema, checked=checked)
    if not sound and checked:
        return False
    if not sound:
        segment.damage.append(_no_legend(segment.path))
    names = _Names()
    while True:
        try:
            batch, metadata = stream.read_next_batch_with_custom_metadata()
        except StopIteration:
            return source.tell() == data.size
        batch.validate(full=True)
        if any(column.null_count for column in batch.columns):
            return False
        if checked:
            facts = _facts_of(metadata)
            if facts["batch"] != len(segment.batches) + 1 or facts["rows"] != _crc_of_rows(batch):
                return False
            if not names.are(batch, facts["names"]):
                return False
        segment.batches.append(batch)


class _Names:
    """Checks the names of batches; those that were checked are not read again."""

    def __init__(self) -> None:
        self._seen: tuple[int, ...] = ()

    def are(self, batch: pa.RecordBatch, crc: int) -> bool:
        names = batch.column("name").dictionary
        seen = (crc, len(names), *(buffer.address for buffer in names.buffers() if buffer is not None))
        if seen != self._seen and _crc_of_names(names.to_pylist()) != crc:
            return False
        self._seen = seen
        return True


def _salvage(path: Path, raw: mmap.mmap) -> Segment:
    """The batches whose checksums hold, wherever in the file they are found."""
    import pyarrow as pa

    segment, names, numbers, unnamed = Segment(path, is_cut=raw[-len(_END) :] != _END), dict[int, str](), [], 0
    data, end, ends_well, sound = pa.py_buffer(raw), 0, True, False
    decode = _Decoder()
    for begin, end, message in _messages(raw, data):
        if message.type == "schema":
            with suppress(*_faults()):
                segment.legend, sound = _legend_of(pa.ipc.read_schema(message), checked=True)
        if message.type != "record batch":
            continue
        found = decode(data.slice(begin, end - begin))
        ends_well = found is not None
        if found is None:
            continue
        batch, facts = found
        names |= dict(enumerate(facts["new"], facts["first"]))
        batch, lost = _named(batch, names)
        unnamed += lost
        numbers.append(facts["batch"])
        segment.batches.append(batch)
    torn = _is_torn(data, end)
    if not end and torn:
        return segment
    if not sound:
        segment.damage.append(_no_legend(path))
    segment.damage += _gaps(segment, numbers, ends_well=ends_well and torn)
    if unnamed:
        segment.damage.append(f"{path}: {unnamed} rows whose names are damaged are left out")
    segment.batches = [batch for batch in segment.batches if batch.num_rows]
    return segment


def _gaps(segment: Segment, numbers: list[int], *, ends_well: bool) -> list[str]:
    """Which batches are missing between those of `numbers`, in words."""
    steps = [(_first_step([batch]), _last_step([batch])) for batch in segment.batches]
    before: tuple[int, Any] = (0, None)
    words = []
    for number, (since, until) in zip(numbers, steps, strict=True):
        if number > before[0] + 1:
            words.append(_left_out(segment.path, before[0] + 1, number - 1, before[1], since))
        before = number, until if until is not None else before[1]
    if not ends_well:
        words.append(_left_out(segment.path, before[0] + 1, None, before[1], None))
    return words


def _left_out(path: Path, first: int, last: int | None, since: int | None, until: int | None) -> str:
    which = f"batch {first}" if first == last else f"the end from batch {first} on" if last is None else None
    which = which or f"batches {first} to {last}"
    steps = f"steps {'0' if since is None else since} to {'the last' if until is None else until}"
    return f"{path}: {which} (within {steps}) cannot be read, and is left out"


def _no_legend(path: Path) -> str:
    return f"{path}: what it says of the layers' kinds, shapes and depths is damaged, and left out"


class _Decoder:
    """Reads a batch's message without the messages before it; its names are then bare numbers."""

    def __init__(self) -> None:
        import pyarrow as pa

        schema, sink = segment_schema(None), pa.BufferOutputStream()
        nothing = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), pa.array([""]))
        empty = pa.record_batch([pa.array([], pa.int64()), nothing, pa.array([], pa.float64())], schema=schema)
        with pa.ipc.new_stream(sink, schema) as stream:
            stream.write_batch(empty)
        self._head = sink.getvalue().to_pybytes().removesuffix(_END)

    def __call__(self, message: pa.Buffer) -> tuple[pa.RecordBatch, dict[str, Any]] | None:
        """The batch and what its metadata says; None where its checksum does not hold."""
        import pyarrow as pa

        try:
            stream = pa.ipc.open_stream(pa.py_buffer(self._head + message.to_pybytes() + _END))
            stream.read_next_batch()
            batch, metadata = stream.read_next_batch_with_custom_metadata()
            facts = _facts_of(metadata)
            sound = not any(c.null_count for c in batch.columns) and _crc_of_rows(batch) == facts["rows"]
        except _faults():
            return None
        return (batch, facts) if sound else None


def _named(batch: pa.RecordBatch, names: Mapping[int, str]) -> tuple[pa.RecordBatch, int]:
    """The batch with its names, and the number of rows without a name, which are left out."""
    import pyarrow as pa

    codes = batch.column("name").indices.to_numpy()
    known = np.array([code in names for code in codes.tolist()], dtype=bool)
    place = {code: i for i, code in enumerate(names)}
    own = pa.array([place[code] for code in codes[known].tolist()], pa.int32())
    column = pa.DictionaryArray.from_arrays(own, pa.array(list(names.values()), pa.string()))
    columns = [pa.array(batch.column("step").to_numpy()[known]), column]
    columns.append(pa.array(batch.column("value").to_numpy()[known]))
    return pa.record_batch(columns, schema=segment_schema(None).remove_metadata()), int((~known).sum())


def _message_at(data: pa.Buffer, at: int) -> tuple[pa.Message, int] | None:
    """The message that begins at a byte, and where it ends; None where there is none."""
    import pyarrow as pa

    source = pa.BufferReader(data.slice(at))
    try:
        return pa.ipc.read_message(source), at + source.tell()
    except _faults():
        return None


def _messages(raw: mmap.mmap, data: pa.Buffer) -> Iterator[tuple[int, int, pa.Message]]:
    """Every message that can be read, with its first byte and its end; damaged ones are passed over."""
    at = 0
    while at >= 0:
        found = _message_at(data, at) if raw[at : at + 4] == _MARKER else None
        if found is not None:
            yield at, found[1], found[0]
        at = found[1] if found is not None else raw.find(_MARKER, at + 1)


def _end_of_messages(data: pa.Buffer) -> int:
    """Where the messages end that follow one another without a gap."""
    at = 0
    while (found := _message_at(data, at)) is not None:
        at = found[1]
    return at


def _is_torn(data: pa.Buffer, at: int) -> bool:
    """Whether what follows the last sound message is an end: of the stream, or of a message that was cut short."""
    import pyarrow as pa

    tail = data.slice(at).to_pybytes()
    if tail in (b"", _END) or (len(tail) < 8 and _MARKER.startswith(tail[:4])):
        return True
    if not tail.startswith(_MARKER) or tail.endswith(_END):
        return False
    if 8 + int.from_bytes(tail[4:8], "little") > len(tail):
        return True
    try:
        pa.ipc.read_message(pa.py_buffer(tail))
    except _faults() as error:
        return "message body" in str(error)
    return False


def _facts_of(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """What a batch's metadata says of it. Raises `ValueError` where that is missing or damaged."""
    text = (metadata or {}).get(CHECK, b"")
    if f"{zlib.crc32(text[8:]):08x}".encode() != text[:8]:
        raise ValueError("the batch has no sound checksum")
    return dict(json.loads(text[8:]))


def _legend_of(schema: pa.Schema, *, checked: bool) -> tuple[dict[str, Any], bool]:
    """The legend of a schema, and whether it is sound."""
    metadata = schema.metadata or {}
    text = metadata.get(LEGEND, b"")
    if checked and metadata.get(CHECK) != f"{zlib.crc32(text):08x}".encode():
        return {}, False
    try:
        legend = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        return {}, False
    return (legend, True) if _is_legend(legend) else ({}, False)


def _is_legend(legend: Any) -> bool:
    """Whether this has a legend's form: parts, each a mapping, of layers and parameters to facts."""
    if not isinstance(legend, dict) or not all(isinstance(part, dict) for part in legend.values()):
        return False
    return all(isinstance(fact, dict) for part in ("layers", "parameters") for fact in legend.get(part, {}).values())


def _crc_of_names(names: Sequence[str], crc: int = 0) -> int:
    for name in names:
        crc = zlib.crc32(f"{json.dumps(name)}\n".encode(), crc)
    return crc


def _crc_of_rows(batch: pa.RecordBatch) -> int:
    crc = 0
    for column in (batch.column("step"), batch.column("name").indices, batch.column("value")):
        crc = zlib.crc32(np.ascontiguousarray(column.to_numpy()).view(np.uint8).data, crc)
    return crc


def _first_step(batches: Sequence[pa.RecordBatch]) -> int | None:
    return next((batch.column("step")[0].as_py() for batch in batches if batch.num_rows), None)


def _last_step(batches: Sequence[pa.RecordBatch]) -> int | None:
    return next((batch.column("step")[-1].as_py() for batch in reversed(batches) if batch.num_rows), None)
