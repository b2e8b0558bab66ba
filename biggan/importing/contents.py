"""Files that `torch.save` wrote, as plain values and tensors. They are read as data: nothing in them runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from biggan.errors import UserError
from spectra.networks.files.pickled import Built, Name
from spectra.networks.files.stored import StoredTensor, WeightFileError, without_wrappers
from spectra.networks.files.torch_files import torch_content

MODULES = frozenset(f"torch.nn.modules.activation.{name}" for name in ("ReLU", "LeakyReLU", "ReLU6", "ELU", "SELU"))
"""Classes of torch that another program's saved settings may hold; they too are only written down."""


def read_values(path: Path) -> Any:
    """What a file holds: dicts, lists, numbers and texts; tensors as `Tensor`; what a class would be, as its name.

    Raises `UserError` for a file that cannot be read so.
    """
    try:
        content, tensor_of = torch_content(path, MODULES)
        return _plain(content, tensor_of)
    except (WeightFileError, OSError) as error:
        raise UserError(f"{error}.") from error


def _plain(value: Any, tensor_of: Callable[[Any], StoredTensor | None]) -> Any:
    if isinstance(value, Built):
        return _built(value, tensor_of)
    if isinstance(value, dict):
        return {key: _plain(item, tensor_of) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, tensor_of) for item in value]
    return value.path if isinstance(value, Name) else value


def _built(value: Built, tensor_of: Callable[[Any], StoredTensor | None]) -> Any:
    if value.what == "numpy.core.multiarray.scalar":
        return _numpy_scalar(value)
    stored = tensor_of(value)
    if stored is not None:
        if stored.reason is not None:
            raise WeightFileError(f"a tensor of shape {list(stored.shape)} cannot be read: {stored.reason}")
        return stored.read()
    if value.what in ("collections.OrderedDict", "builtins.dict"):
        pairs = value.args[0] if value.args else []
        return {key: _plain(item, tensor_of) for key, item in [*pairs, *value.entries.items()]}
    if value.what in ("argparse.Namespace", "types.SimpleNamespace"):
        return _plain(value.state or {}, tensor_of)
    if value.what in ("builtins.float", "builtins.int", "builtins.str") and len(value.args) == 1:
        return value.args[0]
    return value.what


def _numpy_scalar(value: Built) -> Any:
    import numpy as np

    from spectra.networks.files.rebuilt import bytes_of, numpy_dtype

    kind, data = value.args
    name, swapped = numpy_dtype(kind)
    if name is None:
        return None
    dtype = np.dtype(name)
    return np.frombuffer(bytes_of(data), dtype.newbyteorder() if swapped else dtype)[0].item()


def state_dict_of(path: Path, content: Any) -> dict[str, Tensor]:
    """The tensors of a network's state dict by name, in their order, without what wrappers put before the names.

    Raises `UserError` where it is none.
    """
    import torch

    wrong = not isinstance(content, Mapping) or not content
    if wrong or not all(isinstance(one, torch.Tensor) for one in content.values()):
        raise UserError(f"{path} is not a network's state dict. Expected names with tensors, as model.state_dict().")
    return dict(zip(without_wrappers(list(content)), content.values(), strict=True))


def file_facts(files: Iterable[Path]) -> dict[str, Any]:
    """Name -> size in bytes and SHA-256 of each file."""
    facts = {}
    for path in files:
        with path.open("rb") as file:
            facts[path.name] = {
                "bytes": path.stat().st_size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
    return facts
