"""Numpy's files: `.npz`, a zip of arrays, and `.npy`, one array. Nothing in them is unpickled."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from spectra.networks.files.rebuilt import from_bytes
from spectra.networks.files.stored import (
    ZIP_FAULTS,
    StoredTensor,
    WeightFileError,
    entries,
    incomplete,
    never_read,
    without_wrappers,
)

if TYPE_CHECKING:
    from torch import Tensor

UNPACKED_FREELY = 1 << 30
"""Compressed arrays of up to so many bytes are unpacked in any case; larger ones only up to `MOST_UNPACKED` times."""

MOST_UNPACKED = 64
"""How many times larger than in the file an array may be: deflate shrinks zeros a thousandfold."""

LONGEST_HEADER = 10_000
"""In bytes, as numpy's own limit."""

_KINDS = {"f": "float", "i": "int", "u": "uint", "c": "complex"}


def read_arrays(path: Path) -> list[StoredTensor]:
    """The arrays in an `.npz` or `.npy` file.

    Raises:
        WeightFileError: the file is not complete.
    """
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if not is_zip:
        return [_array("array", lambda: path.open("rb"), path.stat().st_size, path.stat().st_size)]
    try:
        archive = zipfile.ZipFile(path)  # stays open for the arrays that are read later
        records = [record for record in archive.infolist() if record.filename.endswith(".npy")]
    except ZIP_FAULTS as error:
        raise incomplete(path, error) from error
    names = without_wrappers([record.filename.removesuffix(".npy") for record in records])
    return [
        _array(name, partial(archive.open, record), record.file_size, record.compress_size)
        for name, record in zip(names, records, strict=True)
    ]


def _array(name: str, open_it: Callable[[], IO[bytes]], size: int, packed: int) -> StoredTensor:
    """One array, by its header."""

    def refused(shape: tuple[int, ...], dtype: str, reason: str) -> StoredTensor:
        return StoredTensor(name, shape, dtype, never_read, reason)

    try:
        with open_it() as file:
            shape, is_fortran, dtype = _header(file)
            start = file.tell()
    except (*ZIP_FAULTS, EOFError, OSError, RuntimeError) as error:
        return refused((0, 0), "unknown", f"its header cannot be read ({str(error)[:100]})")
    except Exception as error:  # zlib's own, of a damaged stream
        if type(error).__module__ != "zlib":
            raise
        return refused((0, 0), "unknown", f"it is damaged ({error})")
    if dtype.hasobject or dtype.kind not in "fiucb":
        return refused(shape, "object", f"of numpy's type {str(dtype)[:50]}: not plain numbers")
    type_name = "bool" if dtype.kind == "b" else f"{_KINDS[dtype.kind]}{8 * dtype.itemsize}"
    if type_name not in _torch_types():
        return refused(shape, type_name, f"{type_name}: torch has no such type; save it as float64")
    wanted = entries(shape) * dtype.itemsize
    if start + wanted > size:
        return refused(shape, type_name, "its entries are not in the file, which is cut off or damaged")
    if wanted > max(UNPACKED_FREELY, MOST_UNPACKED * packed):
        return refused(shape, type_name, f"{packed} bytes would unpack to {wanted}: save it with numpy.savez")
    read = partial(_read, open_it, start, wanted, shape, is_fortran, type_name, dtype.str[0] == _other_order())
    return StoredTensor(name, *_torch_order(name, shape, type_name, read))


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, Any]:
    """Shape, order and type of an array; the file is left where its entries begin."""
    from numpy.lib import format as npy

    start = file.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:] not in (b"\x01\x00", b"\x02\x00"):
        raise ValueError("it is no array of numpy's format 1 or 2")
    length = file.read(2 if start[6] == 1 else 4)
    size = int.from_bytes(length, "little")
    if size > LONGEST_HEADER:
        raise ValueError(f"it would be {size} bytes long")
    header = io.BytesIO(length + file.read(size))
    return (npy.read_array_header_1_0 if start[6] == 1 else npy.read_array_header_2_0)(header)


def _torch_types() -> set[str]:
    import torch

    return {name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)}


def _other_order() -> str:
    import sys

    return ">" if sys.byteorder == "little" else "<"


def _read(
    open_it: Callable[[], IO[bytes]],
    start: int,
    count: int,
    shape: tuple[int, ...],
    is_fortran: bool,
    dtype: str,
    swapped: bool,
) -> Tensor:
    with open_it() as file:
        file.read(start)
        data = file.read(count)
    if len(data) < count:
        raise WeightFileError("its entries are not all in the file")
    flat = from_bytes(data, dtype, swapped)
    if is_fortran:
        return flat.reshape(shape[::-1]).permute(*reversed(range(len(shape))))
    return flat.reshape(shape)


def _torch_order(
    name: str, shape: tuple[int, ...], dtype: str, read: Callable[[], Tensor]
) -> tuple[tuple[int, ...], str, Callable[[], Tensor]]:
    """A convolution's ``kernel`` (Flax, Keras: axes, in, out) as torch keeps it: (out, in, axes)."""
    if name.rpartition("/")[2].rpartition(".")[2] != "kernel" or len(shape) not in (4, 5):
        return shape, dtype, read
    axes = range(len(shape) - 2)
    return (shape[-1], shape[-2], *shape[:-2]), dtype, lambda: read().permute(-1, -2, *axes)
