"""What a pickle would rebuild tensors of, checked against what the file holds: torch's tensors and numpy's arrays.

Shapes, strides and offsets come from the file and may be anything: a tensor is taken only where its entries lie in its
storage and are no more than the storage has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from spectra.networks.files.pickled import Built, Name, Persistent
from spectra.networks.files.stored import StoredTensor, never_read

if TYPE_CHECKING:
    from torch import Tensor

STORAGES = {
    **{"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16"},
    **{"LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8"},
    **{"ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8", "QInt8Storage": "qint8"},
    **{"ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64", "QInt32Storage": "qint32"},
    **{"QUInt8Storage": "quint8", "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4"},
}
"""The names of torch's types of storages, and the types of their entries."""

_SYNONYMS = {"double": "float64", "float": "float32", "half": "float16", "long": "int64", "int": "int32"}
_SYNONYMS |= {"short": "int16", "cfloat": "complex64", "cdouble": "complex128"}

_WRAPPED = {
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor",
    "torch._utils._rebuild_xla_tensor",
    "torch.nn.parameter.Parameter",
}
"""What holds a tensor as its first argument."""


@dataclass(frozen=True)
class Storage:
    """Where tensors' entries lie.

    Attributes:
        dtype: torch's name of their type.
        size: in bytes.
        read: takes (first byte, how many) to bytes; None where there are none.
        reason: why it cannot be read, or None.
        swapped: the bytes of each entry are in the order of another kind of machine.
    """

    dtype: str
    size: int
    read: Callable[[int, int], bytes] | None
    reason: str | None = None
    swapped: bool = False


def tensor_of(value: Any, storage: Callable[[Persistent], Storage]) -> StoredTensor | None:
    """A value of a pickle as a tensor without a name; None where it is none. Never raises: see its `reason`."""
    for _ in range(8):
        if not isinstance(value, Built):
            return None
        if value.what in _WRAPPED and value.args:
            value = value.args[0]
        elif value.what == "torch._tensor._rebuild_from_type_v2" and len(value.args) == 4:
            rebuild, _, args, _ = value.args
            if not isinstance(rebuild, Name) or not isinstance(args, tuple):
                return None
            value = Built(rebuild.path, args)
        else:
            break
    try:
        return _tensor(value, storage)
    except (TypeError, ValueError, LookupError, AttributeError):
        return _without((0, 0), "unknown", "what its file says of it is damaged")


def _without(shape: tuple[int, ...], dtype: str, reason: str) -> StoredTensor:
    return StoredTensor("", shape, dtype, never_read, reason)


def _tensor(value: Built, storage: Callable[[Persistent], Storage]) -> StoredTensor | None:
    rebuild, args = value.what.removeprefix("torch._utils."), value.args
    if rebuild in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        return _dense(storage(args[0]), None, args[1], args[2], args[3])
    if rebuild == "_rebuild_tensor_v3":
        return _dense(storage(args[0]), _dtype(args[6]), args[1], args[2], args[3])
    if rebuild == "_rebuild_qtensor":
        dtype = storage(args[0]).dtype
        return _without(_shape(args[2]), dtype, f"quantized ({dtype}): save the weights dequantized")
    if rebuild == "_rebuild_sparse_tensor":
        sizes = [part for part in args[1] if isinstance(part, Built) and part.what == "torch.Size"]
        return _without(_shape(sizes[0]), "sparse", "sparse: save it dense (tensor.to_dense())")
    if rebuild == "_rebuild_meta_tensor_no_storage":
        return _without(_shape(args[1]), _dtype(args[0]), "on the meta device: it has a shape and no entries")
    if rebuild == "_rebuild_wrapper_subclass":
        return _without(_shape(args[2]), _dtype(args[1]), "a tensor subclass (such as DTensor): save full tensors")
    if rebuild == "_rebuild_nested_tensor":
        return _without((0, 0), "nested", "a nested tensor: save its parts")
    return array_of(value)


def _shape(size: Any) -> tuple[int, ...]:
    """A shape as the file gives it, checked."""
    if isinstance(size, Built) and size.what == "torch.Size":
        size = size.args[0]
    if len(size) > 64 or not all(type(side) is int and 0 <= side < 2**62 for side in size):
        raise ValueError("no shape")
    return tuple(size)


def _dtype(name: Any) -> str:
    short = name.path.removeprefix("torch.")
    return _SYNONYMS.get(short, short)


def _dense(storage: Storage, dtype: str | None, offset: Any, size: Any, stride: Any) -> StoredTensor:
    """A tensor with strides on a storage."""
    import torch

    shape, steps, dtype = _shape(size), _shape(stride), dtype or storage.dtype
    if type(offset) is not int or offset < 0 or len(steps) != len(shape):
        raise ValueError("no place in a storage")
    if storage.reason is not None:
        return _without(shape, dtype, storage.reason)
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        return _without(shape, dtype, f"{dtype}: this version of torch ({torch.__version__}) does not know this type")
    width, count = getattr(torch, dtype).itemsize, math.prod(shape)
    reach = 1 + sum((side - 1) * step for side, step in zip(shape, steps, strict=True)) if count else 0
    if storage.read is None or (offset + reach) * width > storage.size:
        held = storage.size // width
        return _without(shape, dtype, f"it reaches to entry {offset + reach} of {held}: the file is damaged")
    if count > reach:
        return _without(shape, dtype, f"expanded: {count} entries on {reach} that are stored; save tensor.clone()")
    return StoredTensor("", shape, dtype, partial(_read, storage, dtype, offset * width, reach * width, shape, steps))


def _read(
    storage: Storage, dtype: str, start: int, size: int, shape: tuple[int, ...], steps: tuple[int, ...]
) -> Tensor:
    assert storage.read is not None
    return from_bytes(storage.read(start, size), dtype, storage.swapped).as_strided(shape, steps)


def from_bytes(data: bytes, dtype: str, swapped: bool = False) -> Tensor:
    """A flat tensor of these bytes; `swapped` turns those of each entry around."""
    import torch

    kind = getattr(torch, dtype)
    flat = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    if swapped and kind.itemsize > 1:
        flat = flat.view(-1, kind.itemsize).flip(1).flatten()
    return flat.view(kind)


def bytes_of(value: Any) -> bytes:
    """Bytes in a pickle: as they are, or as protocol 2 writes them, text for `_codecs.encode`."""
    if isinstance(value, Built) and value.what == "_codecs.encode" and isinstance(value.args[0], str):
        value = value.args[0]
    elif isinstance(value, Built) and value.what in ("builtins.bytes", "builtins.bytearray"):
        return bytes_of(value.args[0]) if value.args else b""
    return value.encode("latin-1") if isinstance(value, str) else bytes(memoryview(value))


def array_of(value: Built) -> StoredTensor | None:
    """One of numpy's arrays in a pickle."""
    if value.what == "numpy.core.multiarray._reconstruct" and value.state is not None:
        _, shape, numpy_type, is_fortran, data = value.state
    elif value.what == "numpy.core.numeric._frombuffer":
        data, numpy_type, shape, order = value.args
        is_fortran = order == "F"
    else:
        return None
    shape, (dtype, swapped) = _shape(shape), numpy_dtype(numpy_type)
    if dtype is None:
        return _without(shape, "object", "an array of objects, not of numbers")
    steps = _steps(shape, bool(is_fortran))
    content = partial(bytes_of, data)
    size = len(data.args[0] if isinstance(data, Built) else data)
    storage = Storage(dtype, size, lambda start, count: content()[start : start + count], None, swapped)
    return _dense(storage, None, 0, shape, steps)


def _steps(shape: tuple[int, ...], is_fortran: bool) -> tuple[int, ...]:
    """The strides of a contiguous array."""
    order = range(len(shape)) if is_fortran else reversed(range(len(shape)))
    steps, step = [0] * len(shape), 1
    for axis in order:
        steps[axis] = step
        step *= shape[axis]
    return tuple(steps)


_NUMPY = {"f": "float", "i": "int", "u": "uint", "c": "complex"}


def numpy_dtype(dtype: Built) -> tuple[str | None, bool]:
    """Torch's name of one of numpy's types (None: not of numbers), and whether its bytes are swapped."""
    import sys

    text = dtype.args[0]
    parts = re.fullmatch(r"[<>|=]?([fiuc])(\d+)|[|]?(b)1", text) if isinstance(text, str) else None
    if parts is None:
        return None, False
    order = dtype.state[1] if dtype.state else text[0]
    native = "<" if sys.byteorder == "little" else ">"
    return ("bool" if parts[3] else f"{_NUMPY[parts[1]]}{8 * int(parts[2])}"), order in "<>" and order != native
