"""One tensor in a file, of whatever format: what is known of it before it is read, and why it may not be taken."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class WeightFileError(ValueError):
    """A file cannot be read as a checkpoint; the message says what came, what was expected and how to fix it."""


ZIP_FAULTS = (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, MemoryError)
"""What `zipfile` raises for a damaged archive, or one made to be in the way."""


def incomplete(path: Path, error: BaseException) -> WeightFileError:
    """A file that was cut off or is damaged."""
    return WeightFileError(
        f"{path} is not a complete checkpoint ({str(error)[:200]}): it was cut off or is damaged. Copy it again, or "
        "choose another checkpoint"
    )


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a file.

    Attributes:
        name: dotted, as the network calls it: without what wrappers put before it (`without_wrappers`).
        shape: as stored.
        dtype: torch's name of the type of its entries ("float32").
        read: loads it; not called where there is a `reason`.
        reason: why it cannot be taken, such as "sparse"; None where nothing is known against it.
        is_optimizer: whether it is part of an optimizer's state.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor]
    reason: str | None = None
    is_optimizer: bool = False


FLOATS = ("float64", "float32", "float16", "bfloat16")
SMALL_FLOATS = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
"""Types that are read as float32, which holds each of their values."""

_WEIGHT = re.compile(r"(^|[._])(weight|qweight|weight_packed|kernel)$")


def not_taken_because(tensor: StoredTensor) -> str | None:
    """Why a tensor has no singular values here; None where it has, or is no weight anyway (`is_weight`)."""
    if tensor.reason is not None:
        return tensor.reason
    if 0 in tensor.shape:
        return f"empty: its shape is {' x '.join(map(str, tensor.shape))}"
    if tensor.dtype in FLOATS or tensor.dtype in SMALL_FLOATS:
        return None
    if tensor.dtype.startswith("complex"):
        return f"{tensor.dtype}: singular values of complex matrices are not computed"
    if tensor.dtype.startswith(("float4", "float6")):
        return f"{tensor.dtype}: packed; save the weights in bfloat16 or float8"
    return f"{tensor.dtype}: quantized or packed; save the weights dequantized, in a floating-point type"


def is_weight(tensor: StoredTensor) -> bool:
    """Whether a tensor is listed: two or more dimensions, and numbers rather than indices, masks or counts."""
    if len(tensor.shape) < 2:
        return False
    whole = tensor.dtype == "bool" or re.fullmatch(r"u?int\d+", tensor.dtype) is not None
    return not whole or tensor.reason is not None or bool(_WEIGHT.search(tensor.name))


def entries(shape: Sequence[int]) -> int:
    """How many numbers a tensor of this shape has."""
    return math.prod(shape)


def never_read() -> Tensor:
    """The `read` of a tensor that cannot be taken."""
    raise WeightFileError("a tensor that cannot be taken was read all the same")


_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def without_wrappers(names: Sequence[str]) -> list[str]:
    """Names of one state dict without what wrappers add: `torch.compile`'s ``_orig_mod``, FSDP's and checkpointing's
    names wherever they stand, and the ``module.`` of DataParallel and DDP where all names begin with it. The names
    stay as they are where two would become one."""
    shorter = [".".join(part for part in name.split(".") if part not in _WRAPPERS) or name for name in names]
    while shorter and all(name.startswith("module.") and name != "module." for name in shorter):
        shorter = [name.removeprefix("module.") for name in shorter]
    return shorter if len(set(shorter)) == len(set(names)) else list(names)
