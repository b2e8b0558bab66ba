"""CIFAR-10 and CIFAR-100 as their authors' python batches. The pickles are read as data: nothing in them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from biggan.data.images import Images
from biggan.data.sources.arrays import ImagesOfAnySize, as_labels, named_classes
from biggan.data.sources.preparable import PreparableSource
from biggan.errors import UserError
from spectra.networks.files.pickled import Built, DamagedPickle, ForeignName, read_pickle
from spectra.networks.files.rebuilt import array_of, bytes_of

SIDE = 32


def _open_cifar(path: Path, resolution: int) -> tuple[Images, Images | None, tuple[str, ...]]:
    ten = (path / "data_batch_1").is_file()
    train = sorted(path.glob("data_batch_*"), key=lambda file: file.name) if ten else [path / "train"]
    val = path / ("test_batch" if ten else "test")
    meta = path / ("batches.meta" if ten else "meta")
    names = _read(meta).get("label_names" if ten else "fine_label_names") if meta.is_file() else None
    pixels, labels = _joined(train)
    splits = [ImagesOfAnySize(pixels, labels, resolution, _identity(train))]
    if val.is_file():
        val_pixels, val_labels = _joined([val])
        splits.append(ImagesOfAnySize(val_pixels, val_labels, resolution, _identity([val])))
    classes = named_classes(names, *(split.labels for split in splits))
    return splits[0], splits[1] if len(splits) > 1 else None, classes


def _joined(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of several batches, in order."""
    parts = [_batch(file) for file in files]
    return np.concatenate([pixels for pixels, _ in parts]), np.concatenate([labels for _, labels in parts])


def _batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = _read(path)
    stored = array_of(content["data"]) if isinstance(content.get("data"), Built) else None
    labels = content.get("labels", content.get("fine_labels"))
    if stored is None or stored.reason is not None or labels is None:
        raise UserError(f"{path} is no batch of CIFAR: it has {', '.join(map(str, content))}. Download it again.")
    rows = stored.read().numpy()
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != 3 * SIDE * SIDE:
        raise UserError(f"{path} holds {rows.dtype} {rows.shape}, expected uint8 (N, 3072). Download it again.")
    pixels = rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return pixels, as_labels(np.asarray(labels), len(pixels), str(path))


def _read(path: Path) -> dict[str, Any]:
    """The mapping in a batch, its keys as text."""
    try:
        with path.open("rb") as file:
            content = read_pickle(file)
    except (OSError, DamagedPickle, ForeignName) as error:
        raise UserError(f"{path} is no whole batch of CIFAR ({error}). Download it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no batch of CIFAR. Download it again.")
    named = {_text(getattr(key, "value", key)): value for key, value in content.items()}
    return {key: [_text(one) for one in value] if key.endswith("names") else value for key, value in named.items()}


def _text(value: Any) -> str:
    """A name as Python 2 or 3 pickled it."""
    if isinstance(value, Built) and value.what == "_codecs.encode":
        value = bytes_of(value)
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _identity(files: list[Path]) -> bytes:
    facts = [(file.name, file.stat()) for file in files]
    return "\0".join(f"{name} {one.st_size} {one.st_mtime_ns}" for name, one in facts).encode()


CIFAR = PreparableSource("CIFAR's python batches", _open_cifar)
"""A folder with data_batch_1 .. 5 and test_batch, or train, test and meta."""
