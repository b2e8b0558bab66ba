"""Weights from a checkpoint file: a state dict (torch's zip format, loaded without running any code) or safetensors."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.extensions import load_extensions

if TYPE_CHECKING:
    from torch import Tensor

PICKLE_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
KINDS_BY_DIMENSION = {2: "linear", 3: "conv1d", 4: "conv2d", 5: "conv3d"}
FORMATS: dict[str, tuple[str, ...]] = {}
"""Formats of checkpoints that hold more than networks (averages, optimizers' moments): how the `format` in the file's
metadata begins, and how the names of the networks' tensors begin. An extension (`spectra.extensions`) adds them."""


class WeightFileError(ValueError):
    """A file cannot be read as a checkpoint; the message says what came, what was expected and how to fix it."""


@dataclass(frozen=True)
class StoredWeight:
    """One tensor of two or more dimensions in a file.

    Attributes:
        name: of the layer; the endings of torch's own storage (".weight", ".weight_orig", parametrizations) are taken
            off.
        kind: from the number of dimensions, nearly all that a file tells: a matrix is called "linear", an embedding's
            too.
        shape: as stored.
        read: loads the tensor.
        transposed: a transposed convolution's, which keeps its outputs in the second dimension: where its bias or
            Spectral Normalization's vector tells. Where these have as many entries as the first dimension, or there are
            none, a file does not tell, and the first dimension is taken for the outputs.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    transposed: bool = False


@dataclass(frozen=True)
class WeightFile:
    """A file's weights in network order.

    Attributes:
        weights: those of two or more dimensions.
        left_out: how many such tensors were left out (optimizers' moments, averaged weights).
        metadata: of a safetensors file.
    """

    weights: list[StoredWeight]
    left_out: int
    metadata: dict[str, str]


def read_weights(path: str | Path, everything: bool = False) -> WeightFile:
    """The weights in a file.

    Args:
        path: safetensors, recognized by content, or what ``torch.save`` wrote: a state dict, or a dict that holds some.
        everything: also the optimizers' state and, of the trainer's own checkpoints, the averaged weights.

    Raises:
        WeightFileError: no such file, not a checkpoint, a pickle that would have to run code, or no weights in it.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise WeightFileError(f"{path} {what}: expected a checkpoint (.safetensors, or .pt as torch.save writes it)")
    read = _read_safetensors if _is_safetensors(path) or path.suffix == ".safetensors" else _read_pickle
    weights, left_out, metadata = read(path, everything)
    if not weights:
        rest = f"; {left_out} of its tensors were omitted, --all shows them" if left_out else ""
        raise WeightFileError(
            f"{path} holds no weight matrix: no floating-point tensor of two or more dimensions was found{rest}"
        )
    return WeightFile(weights, left_out, metadata)


def _is_safetensors(path: Path) -> bool:
    """A safetensors file begins with the length of its header, which is JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _read_safetensors(path: Path, everything: bool) -> tuple[list[StoredWeight], int, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(str(path), framework="pt", device="cpu")
    except SafetensorError as error:
        raise WeightFileError(
            f"{path} is not a complete safetensors file ({error}): it is probably cut off or damaged. Copy it again, "
            "or "
            "choose another checkpoint"
        ) from error
    except RuntimeError as error:  # such as too many open files
        raise WeightFileError(f"{path} cannot be opened ({error})") from error
    metadata = dict(file.metadata() or {})
    # The format stores tensors in the order of their names' bytes, where block 10 comes before block 2.
    names = sorted(file.keys(), key=_natural)
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    networks = _networks_of(metadata.get("format", ""))
    weights: list[tuple[str, tuple[int, ...], Callable[[], Tensor]]] = []
    left_out = 0
    for name in names:
        shape = shapes[name]
        if len(shape) < 2 or not file.get_slice(name).get_dtype().startswith(("F", "BF")):
            continue
        if networks and not everything and not name.startswith(networks):
            left_out += 1
            continue
        weights.append((name, shape, partial(file.get_tensor, name)))
    return _stored(weights, shapes), left_out, metadata


def _networks_of(file_format: str) -> tuple[str, ...]:
    """How the names of the networks' tensors begin; empty where all tensors count."""
    if file_format:
        load_extensions()
    return next((names for known, names in FORMATS.items() if file_format.startswith(known)), ())


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]


def _read_pickle(path: Path, everything: bool) -> tuple[list[StoredWeight], int, dict[str, str]]:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read raises
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightFileError(_explain(path, str(error))) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise WeightFileError(
            f"{path} is not a complete checkpoint: it is neither safetensors nor written by torch.save, or it was "
            "cut off. "
            "Copy it again, or choose another checkpoint"
        ) from error
    weights: list[tuple[str, tuple[int, ...], Callable[[], Tensor]]] = []
    left_out, tensors = 0, _tensors(content, "", False)
    for name, tensor, is_optimizer in tensors:
        if tensor.dim() < 2 or not tensor.is_floating_point():
            continue
        if is_optimizer and not everything:
            left_out += 1
            continue
        weights.append((name, tuple(tensor.shape), partial(_same, tensor)))
    return _stored(weights, {name: tuple(tensor.shape) for name, tensor, _ in tensors}), left_out, {}


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _explain(path: Path, reason: str) -> str:
    """Why torch refused a pickle: foreign classes in it, or no pickle at all."""
    blocked = re.search(r"(?:GLOBAL|global) ([\w.]+)", reason)
    with path.open("rb") as file:
        start = file.read(2)
    if blocked is None and start != b"PK" and not (start[:1] == b"\x80" and start[1:] in PICKLE_PROTOCOLS):
        return f"{path} is not a checkpoint: neither safetensors nor written by torch.save"
    what = f"It asks for {blocked[1]}. " if blocked else ""
    return (
        f"{path} is refused: it is a pickle that would run code when loaded, not only tensors. {what}Expected a state "
        "dict. If you trust the file, load it where it was made and save only model.state_dict()"
    )


def _tensors(content: Any, prefix: str, is_optimizer: bool) -> list[tuple[str, Tensor, bool]]:
    """All tensors in nested dicts and lists, by dotted name, and whether they are an optimizer's."""
    import torch

    if isinstance(content, torch.Tensor):
        return [(prefix or "tensor", content, is_optimizer)]
    if isinstance(content, Mapping):
        is_optimizer = is_optimizer or {"state", "param_groups"} <= set(content)
        items: Iterable[tuple[Any, Any]] = content.items()
    elif isinstance(content, list | tuple):
        items = enumerate(content)
    else:
        return []
    found = []
    for key, value in items:
        found += _tensors(value, f"{prefix}.{key}" if prefix else str(key), is_optimizer)
    return found


_ENDINGS = re.compile(r"\.parametrizations\.weight\.original1?$|\.weight(_orig|_v)?$")


def _stored(
    weights: list[tuple[str, tuple[int, ...], Callable[[], Tensor]]], shapes: Mapping[str, tuple[int, ...]]
) -> list[StoredWeight]:
    """Layer names and kinds, by the shapes of all tensors.

    Weight normalization's magnitudes (out x 1 x ...) do not count as weights, nor do attention's biases of keys and
    values
    (1 x 1 x width).
    """
    names = {name for name, _, _ in weights}
    kept = []
    for name, shape, read in weights:
        direction = re.sub(r"weight_g$", "weight_v", re.sub(r"original0$", "original1", name))
        if (direction != name and direction in names) or (shape[:-1] == (1, 1) and _KEY_BIAS.search(name)):
            continue
        stem, kind = _ENDINGS.sub("", name), KINDS_BY_DIMENSION.get(len(shape), "unknown")
        is_layers = stem != name or name == "weight"
        transposed = kind.startswith("conv") and is_layers and _is_transposed(stem, shape, shapes)
        kept.append(StoredWeight(stem, as_transposed(kind) if transposed else kind, shape, read, transposed))
    return kept


_KEY_BIAS = re.compile(r"(^|\.)bias_[kv]$")


def as_transposed(kind: str) -> str:
    """A convolution's kind as that of a transposed one: "conv2d" -> "conv_transpose2d"."""
    return kind.replace("conv", "conv_transpose", 1) if "transpose" not in kind else kind


def _is_transposed(stem: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether what is stored beside a convolution's weight, (first, second, ...), has the length of transposed outputs.

    A bias has one entry an output: `first` of a plain convolution, `second` times the groups, which divide `first`, of
    a transposed one. Spectral Normalization's vector u has one a row: `first`, or `second`.
    """
    first, second = shape[:2]
    bias = shapes.get("bias" if stem == "weight" else f"{stem}.bias")
    if bias is not None and len(bias) == 1:
        outputs = bias[0]
        return outputs != first and outputs % second == 0 and first % (outputs // second) == 0
    for u in (f"{stem}.weight_u", f"{stem}.parametrizations.weight.0._u"):
        if u in shapes and len(shapes[u]) == 1:
            return shapes[u][0] != first and shapes[u][0] == second
    return False
