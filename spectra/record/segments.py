"""The run's record: long series of named numbers, written as they come, readable after a kill.

A session writes one segment, an Arrow IPC stream `records/spectra-STEP.arrow` named by the step it starts from, and
never appends to another's (Arrow ignores what follows a stream's end). Readers take all segments in order and accept
a torn end. Values are float64; NaN and Inf are kept as they are. What the names mean (each layer's kind and depth,
which quantity is of what) stands in the schema's metadata at the head of every segment.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.record.files import flush as to_disk
from spectra.record.files import remove_partial, replacing, sync

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FLUSH_SECONDS = 1.0
LEGEND = b"spectra"  # the key of the legend in the schema's metadata


def segments(run: Path) -> list[Path]:
    """The run's segments, oldest first."""
    return sorted((Path(run) / "records").glob("spectra-*.arrow"))


def check_is_run(run: Path) -> None:
    """Raise `FileNotFoundError` where a directory holds neither a record nor events."""
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
        self._schema = _schema(legend)
        self._file = open(folder / f"spectra-{start_step:08d}.arrow", "wb")  # noqa: SIM115 - closed in close()
        sync(folder)
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True, compression=compression)
        self._stream = pa.ipc.new_stream(self._file, self._schema, options=options)
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
        """Add one row for each of `values` at `step`. Raises the `OSError` of an earlier write that failed."""
        self._raise_error()
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
        import pyarrow as pa

        try:
            names = pa.DictionaryArray.from_arrays(pa.array(self._indices, pa.int32()), pa.array(list(self._names)))
            columns = [pa.array(self._steps, pa.int64()), names, pa.array(self._values, pa.float64())]
            self._stream.write_batch(pa.record_batch(columns, schema=self._schema))
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


def _schema(legend: Mapping[str, Any] | None) -> pa.Schema:
    import pyarrow as pa

    columns = [("step", pa.int64()), ("name", pa.dictionary(pa.int32(), pa.string())), ("value", pa.float64())]
    return pa.schema(columns, metadata={LEGEND: json.dumps(legend)} if legend else None)


def _check_unwritten(run: Path, start_step: int) -> None:
    last = last_step(run)
    if last is not None and last > start_step:
        raise ValueError(
            f"{run} holds the record of another run, or of a later part of this one: it reaches step {last}, and this "
            f"one begins at {start_step}. Choose another run directory, or start_step={last} to go on"
        )


def last_step(run: str | Path) -> int | None:
    """The last step that the run's record holds; None where it holds none."""
    import pyarrow.compute as pc

    last = [pc.max(batch["step"]).as_py() for segment in segments(Path(run)) for batch in _batches(segment)]
    return max((step for step in last if step is not None), default=None)


def read_legend(run: str | Path) -> dict[str, dict[str, Any]]:
    """What the segments say about the record's names, the newest last; empty where none says anything."""
    legend: dict[str, dict[str, Any]] = {}
    for segment in segments(Path(run)):
        first = next(_batches(segment), None)
        metadata = (first.schema.metadata or {}) if first is not None else {}
        for part, entries in json.loads(metadata.get(LEGEND, b"{}")).items():
            legend[part] = legend.get(part, {}) | entries
    return legend


def read_table(run: str | Path) -> pa.Table | None:
    """The record of a run as an Arrow table (step, name as a dictionary, value), in order; None where there is none."""
    import pyarrow as pa

    tables = [pa.Table.from_batches(batches) for segment in segments(Path(run)) if (batches := list(_batches(segment)))]
    tables = [table.replace_schema_metadata(None) for table in tables]
    return pa.concat_tables(tables).unify_dictionaries() if tables else None


def _batches(segment: Path) -> Iterator[pa.RecordBatch]:
    """The segment's whole batches; stops where a kill tore it."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(segment)) as file, pa.ipc.open_stream(file) as stream:
            yield from stream
    except (pa.ArrowInvalid, OSError):
        return


def read_record(run: str | Path) -> pd.DataFrame:
    """The record of a run as a frame with the columns step, name (categorical) and value, in order."""
    import pandas as pd

    table = read_table(run)
    if table is None:
        empty = {"step": pd.Series(dtype="int64"), "name": pd.Categorical([]), "value": pd.Series(dtype="float64")}
        return pd.DataFrame(empty)
    return table.to_pandas()


def truncate_record(run: Path, step: int) -> None:
    """Drop every row after `step`, before a session resumes from there: segments that reach past it are rewritten."""
    import pyarrow.compute as pc

    remove_partial(Path(run) / "records")
    for segment in segments(run):
        batches = list(_batches(segment))
        if batches and all(pc.max(batch["step"]).as_py() <= step for batch in batches):
            continue
        kept = [batch.filter(pc.less_equal(batch["step"], step)) for batch in batches]
        if any(batch.num_rows for batch in kept):
            _rewrite(segment, [batch for batch in kept if batch.num_rows])
        else:
            segment.unlink()


def _rewrite(segment: Path, batches: list[pa.RecordBatch]) -> None:
    import pyarrow as pa

    table = pa.Table.from_batches(batches).unify_dictionaries()
    with replacing(segment) as temporary, pa.ipc.new_stream(str(temporary), table.schema) as stream:
        stream.write_table(table)
