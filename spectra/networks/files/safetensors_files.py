"""Safetensors: one file, or the shards that an index lists."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.networks.files.stored import StoredTensor, WeightFileError, without_wrappers

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_INDEX = 100 << 20
"""In bytes; an index of 100,000 tensors has ten million."""

_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"}
_TYPES |= {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "C64": "complex64"}
_TYPES |= {"F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F4": "float4_e2m1fn_x2"}


def read_safetensors(path: Path) -> tuple[list[StoredTensor], dict[str, str]]:
    """The tensors in a file, in network order, and its metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(str(path), framework="pt", device="cpu")
    except SafetensorError as error:
        raise WeightFileError(
            f"{path} is not a complete safetensors file ({error}): it is probably cut off or damaged. Copy it again, "
            "or choose another checkpoint"
        ) from error
    except RuntimeError as error:  # such as too many open files
        raise WeightFileError(f"{path} cannot be opened ({error})") from error
    # The format stores tensors in the order of their names' bytes, where block 10 comes before block 2.
    stored = sorted(file.keys(), key=natural)
    tensors = []
    for name, shorter in zip(stored, without_wrappers(stored), strict=True):
        part = file.get_slice(name)
        tensors.append(StoredTensor(shorter, tuple(part.get_shape()), _dtype(part), partial(_read, file, name)))
    return tensors, dict(file.metadata() or {})


def _dtype(part: Any) -> str:
    stored = part.get_dtype()
    whole = re.fullmatch(r"([IU])(\d+)", stored)
    if whole:
        return f"{'int' if whole[1] == 'I' else 'uint'}{whole[2]}"
    return _TYPES.get(stored, stored.replace("F", "float", 1) if stored.startswith("F") else stored.lower())


def _read(file: Any, name: str) -> Tensor:
    from safetensors import SafetensorError

    try:
        return file.get_tensor(name)
    except SafetensorError as error:
        raise WeightFileError(str(error)) from error


def natural(name: str) -> list[tuple[int, int | str]]:
    """A key for sorting: numbers in a name count as numbers."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]


def shards_of(index: Path) -> dict[Path, set[str]]:
    """The files that an index (`*.index.json`) lists, and the tensors that each is to hold.

    Raises:
        WeightFileError: not an index, a file outside of its folder, or one that is missing.
    """
    if index.stat().st_size > LARGEST_INDEX:
        raise WeightFileError(f"{index} is too large for an index of shards: more than {LARGEST_INDEX >> 20} MiB")
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        pairs = [(str(name), str(file)) for name, file in listed.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightFileError(
            f"{index} is not an index of shards: expected JSON with a weight_map, from tensors to files"
        ) from error
    shards: dict[Path, set[str]] = {}
    for name, file in pairs:
        if Path(file).name != file or file in ("", ".", ".."):
            raise WeightFileError(f"{index} names the file {file[:200]!r}: expected one beside it, without a folder")
        shards.setdefault(index.parent / file, set()).add(name)
    missing = sorted(path.name for path in shards if not path.is_file())
    if missing:
        rest = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise WeightFileError(
            f"{index} lists {len(shards)} files, of which {len(missing)} are missing ({', '.join(missing[:3])}{rest}): "
            "copy them beside it"
        )
    return shards


def merge(
    paths: list[Path], read: Callable[[Path], tuple[list[StoredTensor], dict[str, str]]]
) -> tuple[list[StoredTensor], dict[str, str]]:
    """The tensors of several files of one network, in network order; the metadata is the first one's.

    Raises:
        WeightFileError: two files hold a tensor of the same name, so they are not parts of one checkpoint.
    """
    tensors: dict[str, StoredTensor] = {}
    home: dict[str, Path] = {}
    metadata: dict[str, str] = {}
    for path in paths:
        found, of_file = read(path)
        metadata = metadata or of_file
        for tensor in found:
            if home.setdefault(tensor.name, path) != path:
                raise WeightFileError(
                    f"{home[tensor.name]} and {path} both hold {tensor.name}: they are not parts of one checkpoint. "
                    "Name one of the files"
                )
            tensors[tensor.name] = tensor
    return sorted(tensors.values(), key=lambda tensor: natural(tensor.name)), metadata
