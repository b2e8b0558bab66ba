"""The run's record: long series of named numbers, written as they come, readable after a kill.

A session writes one segment, an Arrow IPC stream `records/spectra-STEP.arrow` named by the step it starts from, and
never appends to another's (Arrow ignores what follows a stream's end). Readers take all segments in order and accept
a torn end. Values are float64; NaN and Inf are kept as they are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FLUSH_SECONDS = 1.0


def segments(run: Path) -> list[Path]:
    """The run's segments, oldest first."""
    return sorted((Path(run) / "records").glob("spectra-*.arrow"))


class RecordWriter:
    """Appends (step, name, value) rows to one segment, and hands them to the system once a second."""

    def __init__(self, run: Path, start_step: int) -> None:
        import pyarrow as pa

        folder = Path(run) / "records"
        folder.mkdir(parents=True, exist_ok=True)
        self._schema = _schema()
        self._file = open(folder / f"spectra-{start_step:08d}.arrow", "wb")  # noqa: SIM115 - closed in close()
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
        self._stream = pa.ipc.new_stream(self._file, self._schema, options=options)
        self._names: dict[str, int] = {}
        self._steps: list[int] = []
        self._indices: list[int] = []
        self._values: list[float] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._flush_now_and_then, daemon=True)
        self._thread.start()

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Add one row for each of `values` at `step`."""
        with self._lock:
            for name, value in values.items():
                self._steps.append(step)
                self._indices.append(self._names.setdefault(name, len(self._names)))
                self._values.append(float(value))

    def flush(self) -> None:
        """Hand everything appended so far to the operating system."""
        import pyarrow as pa

        with self._lock:
            if not self._steps:
                return
            names = pa.DictionaryArray.from_arrays(pa.array(self._indices, pa.int32()), pa.array(list(self._names)))
            columns = [pa.array(self._steps, pa.int64()), names, pa.array(self._values, pa.float64())]
            self._stream.write_batch(pa.record_batch(columns, schema=self._schema))
            self._file.flush()
            self._steps, self._indices, self._values = [], [], []

    def _flush_now_and_then(self) -> None:
        while not self._closed.wait(FLUSH_SECONDS):
            self.flush()

    def close(self) -> None:
        """Flush and end the segment. Safe to call twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._thread.join()
        self.flush()
        self._stream.close()
        self._file.close()


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("step", pa.int64()), ("name", pa.dictionary(pa.int32(), pa.string())), ("value", pa.float64())])


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
    import pyarrow as pa

    tables = [pa.Table.from_batches(batches) for segment in segments(Path(run)) if (batches := list(_batches(segment)))]
    if not tables:
        empty = {"step": pd.Series(dtype="int64"), "name": pd.Categorical([]), "value": pd.Series(dtype="float64")}
        return pd.DataFrame(empty)
    return pa.concat_tables(tables).unify_dictionaries().to_pandas()


def truncate_record(run: Path, step: int) -> None:
    """Drop every row after `step`, before a session resumes from there: segments that reach past it are rewritten.

    Written beside, fsynced, renamed, so that a kill leaves the old segment or the new one.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for segment in segments(run):
        batches = [batch.filter(pc.less_equal(batch["step"], step)) for batch in _batches(segment)]
        batches = [batch for batch in batches if batch.num_rows]
        if not batches:
            segment.unlink()
            continue
        temporary = segment.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            table = pa.Table.from_batches(batches).unify_dictionaries()
            with pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, segment)
