"""What a file is, by its content: formats that are read, and those that are refused by name, with what to do."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from spectra.networks.files.stored import ZIP_FAULTS, WeightFileError, incomplete

_TO_STATE_DICT = "save a state dict where the model can be loaded: torch.save(model.state_dict(), 'model.pt')"

_STARTS: list[tuple[bytes, str, str]] = [
    (b"GGUF", "a GGUF file", "scan the safetensors that it was converted from"),
    (b"lmgg", "a GGML file", "scan the checkpoint that it was converted from"),
    (b"tjgg", "a GGML file", "scan the checkpoint that it was converted from"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras .h5)", "save the weights with numpy.savez('model.npz', **arrays)"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the checkpoint", "run `git lfs pull`"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it first (gunzip)"),
    (b"BZh", "compressed with bzip2", "unpack it first (bunzip2)"),
    (b"\xfd7zXZ\x00", "compressed with xz", "unpack it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first (zstd -d)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"<!DOCTYPE html", "a web page, not the checkpoint", "download the file itself"),
    (b"<html", "a web page, not the checkpoint", "download the file itself"),
]
_LATER: list[tuple[int, bytes, str, str]] = [
    (4, b"TFL3", "a TensorFlow Lite file", "scan the checkpoint that it was converted from"),
    (4, b"ET12", "an ExecuTorch program", _TO_STATE_DICT),
    (257, b"ustar", "a tar archive", "unpack it, and scan a file in it"),
]
_ENDINGS: list[tuple[str, str, str]] = [
    (
        r"\.distcp$",
        "a part of a distributed checkpoint (DCP)",
        "run `python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt`, and scan model.pt",
    ),
    (r"\.onnx$", "an ONNX file", "scan the checkpoint that it was exported from"),
    (r"\.(ckpt|data)-?\d*\.index$|\.data-\d+-of-\d+$", "a TensorFlow checkpoint", "save it with numpy.savez"),
    (r"\.msgpack$", "a msgpack file (Flax)", "save the flattened parameters with numpy.savez or as safetensors"),
]


def format_of(path: Path) -> str:
    """How a file is to be read: "safetensors", "zip" or "pickle" (torch's), or "arrays" (numpy's).

    Raises:
        WeightFileError: a format that is not read, by name, or no checkpoint.
    """
    with path.open("rb") as file:
        start = file.read(512)
    for ending, what, todo in _ENDINGS:
        if re.search(ending, path.name):
            raise _refused(path, what, todo)
    for begins, what, todo in _STARTS:
        if start.startswith(begins):
            raise _refused(path, what, todo)
    for place, word, what, todo in _LATER:
        if start[place : place + len(word)] == word:
            raise _refused(path, what, todo)
    if _is_safetensors(path, start) or path.suffix == ".safetensors":
        return "safetensors"
    if start.startswith(b"\x93NUMPY"):
        return "arrays"
    if start.startswith(b"PK"):
        return _zip_format(path)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if _is_onnx(start):
        raise _refused(path, "an ONNX file", "scan the checkpoint that it was exported from")
    if not start:
        raise WeightFileError(f"{path} is not a complete checkpoint: it is empty. Copy it again")
    raise WeightFileError(
        f"{path} is not a checkpoint: neither safetensors, nor written by torch.save, nor arrays of numpy (.npz)"
    )


def _refused(path: Path, what: str, todo: str) -> WeightFileError:
    return WeightFileError(f"{path} is {what}, which is not read here: {todo}")


def _is_safetensors(path: Path, start: bytes) -> bool:
    """A safetensors file begins with the length of its header, which is JSON."""
    return len(start) >= 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _is_onnx(start: bytes) -> bool:
    """ONNX is a protobuf without a mark: its version (field 1, a small number), then who wrote it (field 2, text)."""
    return (
        len(start) > 5
        and start[0] == 0x08
        and 0 < start[1] < 32
        and start[2] == 0x12
        and start[4 : 4 + start[3]].isascii()
    )


def _zip_format(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except ZIP_FAULTS as error:
        raise incomplete(path, error) from error
    inner = {name.partition("/")[2] for name in names} | set(names)
    if any(name.startswith("code/") for name in inner) or "constants.pkl" in inner:
        todo = "run torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), 'model.pt'), and scan model.pt"
        raise _refused(path, "a TorchScript program", todo)
    if "archive_format" in inner or "serialized_exported_program.json" in inner:
        todo = "run torch.save(torch.export.load(FILE).state_dict, 'model.pt'), and scan model.pt"
        raise _refused(path, "an exported program (torch.export)", todo)
    if ".data/extern_modules" in inner:
        raise _refused(path, "a torch.package", _TO_STATE_DICT)
    if "model.weights.h5" in inner:
        raise _refused(path, "a Keras file", "save the weights with numpy.savez('model.npz', **arrays)")
    if "data.pkl" in inner:
        return "zip"
    if names and any(name.endswith(".npy") for name in names):
        return "arrays"
    raise WeightFileError(f"{path} is a zip archive without a checkpoint of torch or arrays of numpy: unpack it first")


def refuse_folder(path: Path) -> None:
    """Raise `WeightFileError` for a folder that is a checkpoint of a format which is not read."""
    if (path / ".metadata").is_file() or any(path.glob("*.distcp")):
        todo = (
            f"run `python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} model.pt`, and scan model.pt"
        )
        raise _refused(path, "a distributed checkpoint (DCP)", todo)
    if any(path.glob("zero_pp_rank_*")) or (path / "zero_to_fp32.py").is_file():
        raise _refused(path, "a DeepSpeed checkpoint", f"run `python {path}/zero_to_fp32.py {path} OUT`, and scan OUT")
    if (path / "saved_model.pb").is_file():
        raise _refused(path, "a TensorFlow SavedModel", "save the weights with numpy.savez('model.npz', **arrays)")
    if (path / "_CHECKPOINT_METADATA").is_file() or (path / "manifest.ocdbt").is_file():
        raise _refused(path, "an Orbax checkpoint", "save the flattened parameters with numpy.savez")
