"""Sources that `biggan-data prepare` reads, and training only once they are packed. A new one is one line here."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from biggan.errors import UserError
from biggan.registry import Registry
from spectra.networks.files.stored import ZIP_FAULTS

if TYPE_CHECKING:
    from biggan.data.images import Images

    Found = tuple[Images, Images | None, tuple[str, ...]]


@dataclass(frozen=True)
class PreparableSource:
    """What it is in words, and how it is opened: (path, resolution) to both splits and the classes' names."""

    what: str
    open: Callable[[Path, int], Found]


PREPARABLE: Registry[PreparableSource] = Registry(
    {
        "stylegan": "biggan.data.sources.stylegan:STYLEGAN",
        "arrays": "biggan.data.sources.arrays:ARRAYS",
        "cifar": "biggan.data.sources.cifar:CIFAR",
        "webdataset": "biggan.data.sources.webdataset:WEBDATASET",
        "hdf5": "biggan.data.sources.hdf5:HDF5",
    }
)
"""Kind -> source."""

ARCHIVE_FAULTS = (*ZIP_FAULTS, OSError, EOFError, RuntimeError, zlib.error)
"""What is raised while an archive that is damaged, encrypted or gone is opened and read."""

STYLEGAN_LABELS = "dataset.json"
HDF5_ENDINGS = (".hdf5", ".h5", ".he5")
_UNREAD = {
    ".mdb": "an LMDB database: export its images into a folder, one sub-folder per class",
    ".lmdb": "an LMDB database: export its images into a folder, one sub-folder per class",
    ".tfrecord": "a TFRecord file: export its images into a folder, one sub-folder per class",
    ".tgz": "a compressed tar archive: unpack it, one sub-folder per class",
    ".rar": "a RAR archive: unpack it, one sub-folder per class",
    ".7z": "a 7z archive: unpack it, one sub-folder per class",
    ".mat": "a MATLAB file: save its images and labels with numpy.savez('data.npz', images=..., labels=...)",
}


_UNREAD_FOLDERS = {
    r".*-idx3-ubyte(\.gz)?": "MNIST's idx files: read them with torchvision.datasets.MNIST, and pack that with "
    "biggan.data.from_dataset",
    r"data_batch_\d\.bin": "CIFAR's binary batches: take the python version, or pack torchvision.datasets.CIFAR10 with "
    "biggan.data.from_dataset",
    r"data-\d{5}-of-\d{5}\.arrow": "what Hugging Face's save_to_disk writes: pack datasets.load_from_disk(...) with "
    "biggan.data.from_dataset, or save it with to_parquet",
    r"run\.json": "a run directory, no data set: give the images that it was trained on",
}
"""A name in a folder -> what the folder is, and what to do."""


def preparable_kind(path: Path) -> str | None:
    """Which of `PREPARABLE` lies at a path, by names and by how files begin; None: none of them.

    Raises `UserError`, with what to do, for formats that are known and not read.
    """
    if path.is_dir():
        return _kind_of_folder(path)
    ending = "." + path.name.lower().rpartition(".")[2]
    if path.name.lower().endswith(".tar.gz"):
        ending = ".tgz"
    if ending in _UNREAD:
        raise UserError(f"{path} is {_UNREAD[ending]}.")
    if ending in (".npz", ".npy"):
        return "arrays"
    if ending == ".tar":
        return "webdataset"
    if ending in HDF5_ENDINGS:
        return "hdf5"
    if ending == ".zip":
        return _kind_of_zip(path)
    return None


def _kind_of_folder(path: Path) -> str | None:
    if (only_file := file_of_arrays(path)) != path:
        return preparable_kind(only_file)
    names = {child.name for child in path.iterdir()} if _is_readable(path) else set()
    if STYLEGAN_LABELS in names:
        return "stylegan"
    if "data_batch_1" in names or {"train", "test", "meta"} <= {n for n in names if (path / n).is_file()}:
        return "cifar"
    if names and any(name.endswith(".tar") for name in names) and not any((path / name).is_dir() for name in names):
        return "webdataset"
    for known, what in _UNREAD_FOLDERS.items():
        if any(re.fullmatch(known, name) for name in names):
            raise UserError(f"{path} is {what}.")
    if any(name.endswith(".mdb") for name in names):
        raise UserError(f"{path} is {_UNREAD['.mdb']}.")
    endings = {"." + name.lower().rpartition(".")[2] for name in names}
    if len(endings) == 1 and (only := endings.pop()) in _UNREAD:  # nothing else is there
        raise UserError(f"{path} holds {_UNREAD[only]}.")
    return None


def file_of_arrays(path: Path) -> Path:
    """The file of arrays that a folder holds: images.npy, or one .npz or HDF5 file alone; else `path` itself."""
    if not path.is_dir() or not _is_readable(path):
        return path
    names = {child.name for child in path.iterdir() if not child.name.startswith(".")}
    if "images.npy" in names and not names & {"manifest.json", "origins.npy"}:  # which packed data has beside it
        return path / "images.npy"
    alone = len(names) == 1 and next(iter(names)).lower().endswith((".npz", *HDF5_ENDINGS))
    return path / names.pop() if alone else path


def _is_readable(path: Path) -> bool:
    try:
        next(path.iterdir(), None)
    except OSError:
        return False
    return True


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except ARCHIVE_FAULTS as error:
        raise UserError(f"{path} is not a whole zip archive ({error}). Copy it again.") from error
    if any(re.fullmatch(rf"([^/]+/)?{re.escape(STYLEGAN_LABELS)}", name) for name in names):
        return "stylegan"
    raise UserError(
        f"{path} is a zip archive without {STYLEGAN_LABELS}, StyleGAN's labels. Unpack it, and give the folder with "
        "one sub-folder per class."
    )
