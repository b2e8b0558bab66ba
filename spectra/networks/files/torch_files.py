"""What `torch.save` wrote, in its zip format and the one before it, and pickled state dicts: tensors by name, each read
only when it is asked for. The pickles are read as data (`spectra.networks.files.pickled`)."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from spectra.networks.files.formats import format_of
from spectra.networks.files.nested import tensors_in
from spectra.networks.files.pickled import Built, DamagedPickle, ForeignName, Persistent, module_class, read_pickle
from spectra.networks.files.rebuilt import STORAGES, Storage, bytes_of, tensor_of
from spectra.networks.files.stored import ZIP_FAULTS, StoredTensor, WeightFileError, incomplete

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""The first pickle in a file of torch's format before the zip files."""


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Within, what a file may be instead of a checkpoint becomes a `WeightFileError`."""
    try:
        yield
    except ForeignName as error:
        raise WeightFileError(
            f"{path} is refused: it is a pickle that would run code when loaded, not only tensors. It asks for "
            f"{error.name[:200]!a}. Expected a state dict. If you trust the file, load it where it was made and save "
            "only model.state_dict()"
        ) from error
    except WeightFileError:
        raise
    except (DamagedPickle, *ZIP_FAULTS) as error:
        raise incomplete(path, error) from error


@dataclass(frozen=True)
class _Range:
    """Part of a file or of bytes in memory: `read` takes (first byte within it, how many)."""

    source: Path | bytes
    start: int
    size: int

    def read(self, start: int, count: int) -> bytes:
        first = self.start + start
        if isinstance(self.source, bytes):
            return self.source[first : first + count]
        with self.source.open("rb") as file:
            file.seek(first)
            return file.read(count)


def _record(path: Path, record: zipfile.ZipInfo) -> _Range:
    """Where the bytes of a zip file's record lie. (Its checksum is not looked at: torch may leave it out.)"""
    if record.header_offset < 0:
        raise zipfile.BadZipFile(f"{record.filename[:100]} would lie before the beginning of the file")
    with path.open("rb") as file:
        file.seek(record.header_offset)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"{record.filename[:100]} is not where the file says")
        names = sum(struct.unpack("<HH", header[26:30]))
    start = record.header_offset + 30 + names
    if start + record.compress_size > path.stat().st_size:
        raise zipfile.BadZipFile(f"{record.filename[:100]} reaches beyond the end of the file")
    return _Range(path, start, record.compress_size)


def _is_plain(record: zipfile.ZipInfo) -> bool:
    return record.compress_type == zipfile.ZIP_STORED and not record.flag_bits & 1


def read_torch_zip(path: Path) -> list[StoredTensor]:
    """The tensors in a file of torch's zip format."""
    with _in_words(path):
        content, storage = _zip_content(path)
        return tensors_in(content, partial(tensor_of, storage=storage))


def torch_content(path: Path, further: frozenset[str] = frozenset()) -> tuple[Any, TensorOf]:
    """What a file of `torch.save`, in either of its formats, or a plain pickle holds: (its content, and a function that
    takes a value in it to a tensor, or to None). The content is as `read_pickle` gives it; `further` as there.

    Raises:
        WeightFileError: another kind of file, a damaged one, or one that asks for a name that is not on the list.
    """
    kind = format_of(path)
    if kind not in ("zip", "pickle"):
        raise WeightFileError(f"{path} was not written by torch.save. Expected a .pth file")
    with _in_words(path):
        content, storage = (_zip_content if kind == "zip" else _pickle_content)(path, further)
        return content, partial(tensor_of, storage=storage)


TensorOf = Callable[[Any], StoredTensor | None]
"""A value of a pickle as a tensor without a name; None where it is none."""


def _zip_content(path: Path, further: frozenset[str] = frozenset()) -> tuple[Any, Callable[[Persistent], Storage]]:
    """The object in a file of torch's zip format, and where its storages lie."""
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: record for record in archive.infolist()}
        place = min((name for name in records if name.endswith("data.pkl")), key=len).removesuffix("data.pkl")
        if not _is_plain(records[f"{place}data.pkl"]):
            raise WeightFileError(
                f"{path} is compressed, as torch.save never does: unpack it, and zip it without compression (zip -0)"
            )
        pickle = _record(path, records[f"{place}data.pkl"])
        content = read_pickle(io.BytesIO(pickle.read(0, pickle.size)), further=further)
        order = sys.byteorder.encode()
        if f"{place}byteorder" in records:
            order = _record(path, records[f"{place}byteorder"]).read(0, 6)
        swapped = order != sys.byteorder.encode()

        def storage(persistent: Persistent) -> Storage:
            dtype, key = _storage_id(persistent)
            name = f"{place}data/{key}"
            if name not in records:
                return Storage(dtype, 0, None, f"its entries ({name}) are not in the file")
            if not _is_plain(records[name]):
                return Storage(dtype, 0, None, "its entries are compressed, as torch.save never does")
            try:
                found = _record(path, records[name])
            except zipfile.BadZipFile as error:
                return Storage(dtype, 0, None, f"its entries are not in the file ({error})")
            return Storage(dtype, found.size, found.read, None, swapped)

        return content, storage


def _storage_id(persistent: Any) -> tuple[str, str]:
    """The type of the entries and the key of a storage."""
    kind, storage_type, key = persistent.id[:3]
    if kind != "storage" or not isinstance(key, str | int):
        raise ValueError("not a storage")
    return STORAGES[storage_type.path.rpartition(".")[2]], str(key)


@dataclass
class _Bounded:
    """A file of which no more is asked for than is left of it: a damaged length allocates nothing."""

    file: IO[bytes]
    end: int

    def read(self, size: int = -1, /) -> bytes:
        left = self.end - self.file.tell()
        return self.file.read(left if size < 0 else min(size, left))

    def readline(self) -> bytes:
        return self.file.readline(1 << 20)


def read_torch_pickle(path: Path) -> list[StoredTensor]:
    """The tensors in a file of torch's format before the zip files, or in a plain pickle of a state dict."""
    with _in_words(path):
        content, storage = _pickle_content(path)
        return tensors_in(content, partial(tensor_of, storage=storage))


def _pickle_content(path: Path, further: frozenset[str] = frozenset()) -> tuple[Any, Callable[[Any], Storage]]:
    """The object in a file of torch's format before the zip files, or in a plain pickle, and where its storages lie."""
    with path.open("rb") as file:
        bounded = _Bounded(file, path.stat().st_size)
        content = read_pickle(bounded, further=further)
        storages: dict[str, Storage] = {}
        if content == MAGIC_NUMBER:
            content, storages = _legacy(bounded, path, further)

        def storage(reference: Any) -> Storage:
            if isinstance(reference, Built):
                return _inside_pickle(reference)
            return storages[_storage_id(reference)[1]]

        return content, storage


def _legacy(
    bounded: _Bounded, source: Path | bytes, further: frozenset[str] = frozenset()
) -> tuple[Any, dict[str, Storage]]:
    """The object in a file of the old format, after its magic number, and the storages that follow."""
    import torch

    version, system = read_pickle(bounded), read_pickle(bounded)
    if version != 1001 or not isinstance(system, dict):
        raise DamagedPickle(f"a version {str(version)[:20]} of torch's old format is not known")
    ids: list[Persistent] = []
    content, keys = read_pickle(bounded, ids, further), read_pickle(bounded)
    try:
        ids = [one for one in ids if module_class(one) is None]
        types = {key: dtype for dtype, key in map(_storage_id, ids)}
        views = {_storage_id(one)[1] for one in ids if len(one.id) > 5 and one.id[5] is not None}
        names = [str(key) for key in keys if isinstance(key, str | int)]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DamagedPickle("it asks for what is no storage") from error
    swapped = system.get("little_endian", True) != (sys.byteorder == "little")
    storages: dict[str, Storage] = {}
    place = bounded.file.tell()
    for name in names:
        count = _length(bounded, place, swapped)
        size = count * getattr(torch, types.get(name, "uint8")).itemsize
        reason = "it is a view of a storage, as torch before 0.4 wrote them" if name in views else None
        if count < 0 or name not in types or place + 8 + size > bounded.end:
            storages |= dict.fromkeys(types.keys() - storages.keys(), _CUT_OFF)
            break
        place += 8
        storages[name] = Storage(types[name], size, _Range(source, place, size).read, reason, swapped)
        place += size
    return content, storages


_CUT_OFF = Storage("uint8", 0, None, "its entries are not in the file, which is cut off or damaged")


def _length(bounded: _Bounded, place: int, swapped: bool) -> int:
    """How many entries the storage at a place has, or -1."""
    bounded.file.seek(place)
    data = bounded.read(8)
    order = {"little": "big", "big": "little"}[sys.byteorder] if swapped else sys.byteorder
    return int.from_bytes(data, "big" if order == "big" else "little", signed=True) if len(data) == 8 else -1


def _inside_pickle(reference: Built) -> Storage:
    """A storage in a plain pickle: bytes that are a file of the old format, which holds only this storage."""
    if reference.what != "torch.storage._load_from_bytes":
        raise ValueError("not a storage")
    data = bytes_of(reference.args[0])
    bounded = _Bounded(io.BytesIO(data), len(data))
    try:
        if read_pickle(bounded) != MAGIC_NUMBER:
            raise ValueError("not a storage")
        content, storages = _legacy(bounded, data)
    except (DamagedPickle, ForeignName) as error:
        raise ValueError(str(error)) from error
    return storages[_storage_id(content)[1]]
