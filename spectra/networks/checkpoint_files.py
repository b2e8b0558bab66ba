"""Weights from a checkpoint: state dicts of torch, safetensors, or numpy's arrays; no code in a file is run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spectra.extensions import load_extensions
from spectra.nearest import missing
from spectra.networks.files.arrays import read_arrays
from spectra.networks.files.formats import format_of, refuse_folder
from spectra.networks.files.safetensors_files import merge, read_safetensors, shards_of
from spectra.networks.files.stored import (
    SMALL_FLOATS,
    StoredTensor,
    WeightFileError,
    entries,
    is_weight,
    never_read,
    not_taken_because,
    without_wrappers,
)
from spectra.networks.files.torch_files import read_torch_pickle, read_torch_zip

if TYPE_CHECKING:
    from torch import Tensor

KINDS_BY_DIMENSION = {2: "linear", 3: "conv1d", 4: "conv2d", 5: "conv3d"}
FORMATS: dict[str, tuple[str, ...]] = {}
"""Formats of checkpoints that hold more than networks (averages, optimizers' moments): how the `format` in the file's
metadata begins, and how the names of the networks' tensors begin. An extension (`spectra.extensions`) adds them."""


@dataclass(frozen=True)
class StoredWeight:
    """One tensor of two or more dimensions in a file.

    Attributes:
        name: of the layer; the endings of torch's own storage (".weight", ".weight_orig", parametrizations) are taken
            off, and what wrappers put before it ("module.", "_orig_mod.").
        kind: from the number of dimensions, nearly all that a file tells: a matrix is called "linear", an embedding's
            too.
        shape: as stored.
        read: loads the tensor.
        transposed: a transposed convolution's, which keeps its outputs in the second dimension: where its bias or
            Spectral Normalization's vector tells. Where these have as many entries as the first dimension, or there are
            none, a file does not tell, and the first dimension is taken for the outputs.
        reason: why it cannot be read (sparse, quantized, empty, ...), or None.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    transposed: bool = False
    reason: str | None = None


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
    """The weights in a checkpoint.

    What a file is, its content tells. A tensor that cannot be read is listed with its `reason`.

    Args:
        path: safetensors; what ``torch.save`` wrote (a state dict, or a dict that holds some, beside harmless values);
            ``.npz`` or ``.npy``; an index of shards (``*.index.json``); or a folder with one network, in shards or not,
            or with one in each of its folders.
        everything: also the optimizers' state and, of the trainer's own checkpoints, the averaged weights.

    Raises:
        WeightFileError: nothing there, not a checkpoint, a format that is not read, a pickle that asks for more than
            tensors and plain values, or no weights in it.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise WeightFileError(f"{path} is neither a file nor a directory, but a pipe, a device or a socket")
    if not path.exists():
        raise WeightFileError(f"{missing(path)} Expected a checkpoint (.safetensors, or .pt as torch.save writes).")
    tensors, metadata = _tensors(path)
    networks = _networks_of(metadata.get("format", ""))
    if not any(tensor.name.startswith(networks) for tensor in tensors):
        networks = ()  # a checkpoint of averages alone: they are what it is about
    weights: list[StoredTensor] = []
    left_out = 0
    for tensor in filter(is_weight, tensors):
        if not everything and (tensor.is_optimizer or (networks and not tensor.name.startswith(networks))):
            left_out += 1
        else:
            weights.append(tensor)
    if not weights:
        rest = f"; {left_out} of its tensors were omitted, --all shows them" if left_out else ""
        raise WeightFileError(
            f"{path} holds no weight matrix: no floating-point tensor of two or more dimensions was found{rest}"
        )
    return WeightFile(_stored(weights, {one.name: one.shape for one in tensors}), left_out, metadata)


_Found = tuple[list[StoredTensor], dict[str, str]]
"""Tensors, and the metadata of a safetensors file."""


def _tensors(path: Path) -> _Found:
    if path.is_dir():
        return _of_folder(path)
    if path.name.endswith(".index.json"):
        return _of_index(path)
    form = format_of(path)
    if form == "safetensors":
        return read_safetensors(path)
    return {"zip": read_torch_zip, "pickle": read_torch_pickle, "arrays": read_arrays}[form](path), {}


def _of_index(index: Path) -> _Found:
    """The tensors in an index's shards; of those that a shard lacks, that it does."""
    shards = shards_of(index)
    tensors, metadata = merge(sorted(shards), _tensors)
    held = {tensor.name for tensor in tensors}
    for path, names in sorted(shards.items()):
        for name in sorted(set(without_wrappers(sorted(names))) - held):
            reason = f"the index looks for it in {path.name}, which does not hold it"
            tensors.append(StoredTensor(name, (0, 0), "unknown", never_read, reason))
    return tensors, metadata


_OF_TRAINING = ("optimizer", "scheduler", "scaler", "rng_state", "training_args", "random_states")
"""How the names of files begin that lie beside the weights and hold none."""


def _of_folder(folder: Path, depth: int = 0) -> _Found:
    """The network in a folder: by its index, else all safetensors, else its one other checkpoint; else those in its
    folders, by their names."""
    refuse_folder(folder)
    indices = sorted(folder.glob("*.index.json"), key=lambda path: ("safetensors" not in path.name, path.name))
    if indices:
        return _of_index(indices[0])
    shards = sorted(folder.glob("*.safetensors"))
    if shards:
        return merge(shards, _tensors)
    others = [path for ending in ("bin", "pt", "pth", "ckpt", "npz") for path in sorted(folder.glob(f"*.{ending}"))]
    others = [path for path in others if path.is_file() and not path.name.startswith(_OF_TRAINING)]
    if len(others) == 1:
        return _tensors(others[0])
    if others:
        names = ", ".join(path.name for path in others[:5]) + (", ..." if len(others) > 5 else "")
        raise WeightFileError(f"{folder} is a directory of {len(others)} checkpoints ({names}): name one of them")
    return _of_folders(folder, depth)


def _of_folders(folder: Path, depth: int) -> _Found:
    """The networks in a folder's folders, each with its folder's name before the names of its tensors."""
    found: list[StoredTensor] = []
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for path in inside if depth < 2 else []:
        try:
            tensors, _ = _of_folder(path, depth + 1)
        except _NothingThere:
            continue
        found += [replace(tensor, name=f"{path.name}.{tensor.name}") for tensor in tensors]
    if not found:
        raise _NothingThere(f"{folder} is a directory without a checkpoint in it (.safetensors, .bin, .pt, .pth, .npz)")
    return found, {}


class _NothingThere(WeightFileError):
    """A folder holds no checkpoint."""


def _networks_of(file_format: str) -> tuple[str, ...]:
    """How the names of the networks' tensors begin; empty where all tensors count."""
    if file_format:
        load_extensions()
    return next((names for known, names in FORMATS.items() if file_format.startswith(known)), ())


_ENDINGS = re.compile(r"\.parametrizations\.weight\.original1?$|\.weight(_orig|_v)?$")


def _stored(weights: list[StoredTensor], shapes: Mapping[str, tuple[int, ...]]) -> list[StoredWeight]:
    """Layer names and kinds, by the shapes of all tensors.

    Not weights: weight normalization's magnitudes (out x 1 x ...), attention's biases of keys and values (1 x 1 x
    width), the vectors of power iterations and the scales of quantized weights.
    """
    names = {tensor.name for tensor in weights}
    kept = []
    for tensor in weights:
        name, shape = tensor.name, tensor.shape
        direction = re.sub(r"weight_g$", "weight_v", re.sub(r"original0$", "original1", name))
        if (direction != name and direction in names) or (shape[:-1] == (1, 1) and _KEY_BIAS.search(name)):
            continue
        if _is_power_iteration(name, shape, shapes) or _is_scale(name, shapes):
            continue
        stem, kind = _ENDINGS.sub("", name), KINDS_BY_DIMENSION.get(len(shape), "unknown")
        is_layers = stem != name or name == "weight"
        transposed = kind.startswith("conv") and is_layers and _is_transposed(stem, shape, shapes)
        kind = as_transposed(kind) if transposed else kind
        kept.append(StoredWeight(stem, kind, shape, partial(_read, tensor), transposed, not_taken_because(tensor)))
    return kept


def _read(tensor: StoredTensor) -> Tensor:
    """A tensor; one of 8-bit floats as float32, which holds each of their values."""
    values = tensor.read()
    return values.float() if tensor.dtype in SMALL_FLOATS else values


_KEY_BIAS = re.compile(r"(^|\.)bias_[kv]$")
_POWER_ITERATION = re.compile(r"((weight_|sn_)?[uv]\d*|[uv]_var)$")
_SCALE = re.compile(r"((weight|input)_scale(_inv|_2)?|qzeros|scales|absmax|g_idx)$")


def _beside(name: str, shapes: Mapping[str, tuple[int, ...]], *endings: str) -> tuple[int, ...] | None:
    """The shape of the weight in whose layer a tensor is."""
    layer = name.rpartition(".")[0]
    found = (shapes.get(f"{layer}.{ending}" if layer else ending) for ending in endings)
    return next((shape for shape in found if shape is not None), None)


def _is_power_iteration(name: str, shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a tensor of 1 x N (`u0` of BigGAN-PyTorch, `sn_u`) is a vector that Spectral Normalization keeps."""
    if len(shape) != 2 or 1 not in shape or not _POWER_ITERATION.fullmatch(name.rpartition(".")[2]):
        return False
    weight = _beside(name, shapes, "weight", "weight_orig", "weight_bar")
    if weight is None or len(weight) < 2:
        return False
    transposed = (weight[1], entries(weight) // weight[1] if weight[1] else 0)
    return max(shape) in (weight[0], entries(weight[1:]), *transposed)


def _is_scale(name: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a tensor only scales the quantized weight beside it."""
    beside = _beside(name, shapes, "weight", "qweight", "weight_packed")
    return beside is not None and _SCALE.fullmatch(name.rpartition(".")[2]) is not None


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
