"""The run's record: long series of named numbers, written as they come, readable after a kill.

A session writes one segment, an Arrow IPC stream `records/spectra-STEP.arrow` named by the step it starts from, and
never appends to another's (Arrow ignores what follows a stream's end). Readers take all segments in order, accept a
torn end, and leave out damaged batches with a warning (see `spectra.record.batches`). Values are float64; NaN and Inf
are kept as they are. What the names mean (each layer's kind and depth, which quantity is of what) stands in the
schema's metadata at the head of every segment.
"""

from __future__ import annotations

import shutil
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.nearest import missing
from spectra.record.batches import BatchWriter, Segment, read_segment, segment_schema
from spectra.record.damage import RecordDamage
from spectra.record.events import ended_at
from spectra.record.files import flush as to_disk
from spectra.record.files import remove_partial, replacing, sync

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FLUSH_SECONDS = 1.0


def segments(run: Path) -> list[Path]:
    """The run's segments, oldest first."""
    return sorted((Path(run) / "records").glob("spectra-*.arrow"))


def check_is_run(run: Path) -> None:
    """Raise `FileNotFoundError` where a directory does not exist, or holds neither a record nor events."""
    if said := missing(run):
        raise FileNotFoundError(said)
    if not segments(run) and not (run / "events.jsonl").is_file():
        raise FileNotFoundError(f"{run} is not a run directory: it has no records/spectra-*.arrow and no events.jsonl")


class RecordWriter:
    """Appends (step, name, value) rows to one segment, and hands them to the system once a second.

    Where the system refuses a write (a full disk), the error is raised by the next call; nothing is written after it.
    `compression` is "zstd", "lz4" or none; a reader needs not know. The legend says what the names mean; `read_legend`
    gives it back. Raises `ValueError` where the run's record already reaches past `start_step`: it would be
    overwritten, or no longer be in order.
    """

    def __init__(
        self, run: Path, start_step: int, legend: Mapping[str, Any] | None = None, *, compression: str | None = None
    ) -> None:
        import pyarrow as pa

        folder = Path(run) / "records"
        _check_unwritten(Path(run), start_step)
        folder.mkdir(parents=True, exist_ok=True)
        schema = segment_schema(legend)
        self._file = open(folder / f"spectra-{start_step:08d}.arrow", "wb")  # noqa: SIM115 - closed in close()
        sync(folder)
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True, compression=compression)
        self._stream = pa.ipc.new_stream(self._file, schema, options=options)
        self._batches = BatchWriter(self._stream, schema)
        self._names: dict[str, int] = {}
        self._steps: list[int] = []
        self._indices: list[int] = []
        self._values: list[float] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._flush_now_and_then, daemon=True)
        self._thread.start()

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Add one row for each of `values` at `step`; nothing once closed. Raises the `OSError` of an earlier write
        that failed."""
        self._raise_error()
        if self._closed.is_set():
            return
        with self._lock:
            for name, value in values.items():
                self._steps.append(step)
                self._indices.append(self._names.setdefault(name, len(self._names)))
                self._values.append(float(value))

    def flush(self, *, durable: bool = False) -> None:
        """Hand everything appended so far to the operating system; `durable`: onto the disk.

        Raises `OSError` where it refuses.
        """
        self._raise_error()
        with self._lock:
            if self._steps:
                self._write_batch()
            if durable and self._error is None and not self._file.closed:
                to_disk(self._file)
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _write_batch(self) -> None:
        try:
            self._batches.write(self._steps, self._indices, self._values, list(self._names))
            self._file.flush()
        except OSError as error:
            self._error = error
        self._steps, self._indices, self._values = [], [], []

    def _flush_now_and_then(self) -> None:
        while not self._closed.wait(FLUSH_SECONDS) and self._error is None:
            with suppress(OSError):  # kept, and raised where the caller can see it
                self.flush()

    def close(self) -> None:
        """Flush and end the segment. Safe to call twice, and after an error."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._thread.join()
        try:
            self.flush()
            self._stream.close()
            to_disk(self._file)
        finally:
            self._file.close()


def _check_unwritten(run: Path, start_step: int) -> None:
    last = last_step(run)
    if last is not None and last > start_step:
        raise ValueError(
            f"{run} holds the record of another run, or of a later part of this one: it reaches step {last}, and this "
            f"one begins at {start_step}. Choose another run directory, or start_step={last} to go on"
        )


def last_step(run: str | Path) -> int | None:
    """The last step that the run's record holds; None where it holds none."""
    last = [_last_step(segment) for segment in _read(run)]
    return max((step for step in last if step is not None), default=None)


def read_legend(run: str | Path) -> dict[str, dict[str, Any]]:
    """What the segments say about the record's names, the newest last; empty where none says anything."""
    return _legend(_read(run))


def read_last_legend(run: str | Path) -> dict[str, dict[str, Any]]:
    """What the newest segment that says anything says about its names: those of the run at its end."""
    return next((segment.legend for segment in reversed(_read(run)) if segment.legend), {})


def read_table(run: str | Path) -> pa.Table | None:
    """The record of a run as an Arrow table (step, name as a dictionary, value), in order; None where there is none.

    Damaged batches are left out, with a `RecordDamage` warning for each gap.
    """
    return _table(_read(run))


def read_table_and_legend(run: str | Path) -> tuple[pa.Table | None, dict[str, dict[str, Any]]]:
    """What `read_table` and `read_legend` give, read once."""
    found = _read(run)
    return _table(found), _legend(found)


def _table(found: Sequence[Segment]) -> pa.Table | None:
    import pyarrow as pa

    tables = [pa.Table.from_batches(segment.batches) for segment in found if segment.batches]
    tables = [table.replace_schema_metadata(None) for table in tables]
    return pa.concat_tables(tables).unify_dictionaries() if tables else None


def _legend(found: Sequence[Segment]) -> dict[str, dict[str, Any]]:
    legend: dict[str, dict[str, Any]] = {}
    for segment in found:
        for part, entries in segment.legend.items():
            legend[part] = legend.get(part, {}) | entries
    return legend


def record_damage(run: str | Path) -> list[str]:
    """What of the run's record is damaged and left out, in words: file, batch and steps."""
    return [words for segment in _found(Path(run)) for words in segment.damage]


def _found(run: Path) -> list[Segment]:
    """The segments. One that must have been closed, because there is a later one or the run's session ended after its
    first step, is damaged where its end is missing."""
    end = ended_at(run)  # looked at first: a session closes its record before it says that it ended
    paths = segments(run)
    found = [read_segment(path) for path in paths]
    for number, segment in enumerate(found, 1):
        was_closed = number < len(found) or (end is not None and end > _first_step(segment.path))
        if segment.is_cut and was_closed and not segment.damage:
            last = _last_step(segment)
            after = "all of it" if last is None else f"what followed step {last}"
            segment.damage.append(f"{segment.path} is cut at its end: {after} is missing")
    return found


def _first_step(path: Path) -> int:
    """The step that a segment's session started from, by its name."""
    number = path.stem.removeprefix("spectra-")
    return int(number) if number.isdecimal() else 0


def _read(run: str | Path) -> list[Segment]:
    """The segments, with a warning for whatever is left out."""
    found = _found(Path(run))
    for words in (words for segment in found for words in segment.damage):
        warnings.warn(words, RecordDamage, stacklevel=3)
    return found


def _last_step(segment: Segment) -> int | None:
    import pyarrow.compute as pc

    return max((pc.max(batch["step"]).as_py() for batch in segment.batches if batch.num_rows), default=None)


def read_record(run: str | Path) -> pd.DataFrame:
    """The record of a run as a frame with the columns step, name (categorical) and value, in order."""
    import pandas as pd

    table = read_table(run)
    if table is None:
        empty = {"step": pd.Series(dtype="int64"), "name": pd.Categorical([]), "value": pd.Series(dtype="float64")}
        return pd.DataFrame(empty)
    return table.to_pandas()


def truncate_record(run: Path, step: int) -> None:
    """Drop every row after `step`, before a session resumes from there.

    Segments that reach past it are rewritten, and so are those that a kill left open.

    A damaged segment is rewritten without what cannot be read, and kept beside as NAME.arrow.damaged.
    """
    remove_partial(Path(run) / "records")
    for segment in _read(run):
        last = _last_step(segment)
        if last is not None and last <= step and not segment.damage and not segment.is_cut:
            continue
        if segment.damage:
            shutil.copyfile(segment.path, segment.path.with_name(f"{segment.path.name}.damaged"))
        if last is None or not _rewrite(segment, step):
            segment.path.unlink()


def _rewrite(segment: Segment, step: int) -> bool:
    """Write the segment again with its rows up to `step`; False where it has none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kept = [batch.filter(pc.less_equal(batch["step"], step)) for batch in segment.batches]
    if not any(batch.num_rows for batch in kept):
        return False
    schema, place = segment_schema(segment.legend), dict[str, int]()
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    with replacing(segment.path) as temporary, pa.ipc.new_stream(str(temporary), schema, options=options) as stream:
        writer = BatchWriter(stream, schema)
        for batch in (batch for batch in kept if batch.num_rows):
            names = batch["name"].dictionary.to_pylist()
            codes = [place.setdefault(names[code], len(place)) for code in batch["name"].indices.to_pylist()]
            writer.write(batch["step"].to_pylist(), codes, batch["value"].to_pylist(), list(place))
    return True
