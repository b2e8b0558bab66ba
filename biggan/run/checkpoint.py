"""The checkpoint's file format: one safetensors file, verified by a digest, either whole or not there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.config import Config, from_dict
from biggan.errors import UserError, check_exists
from spectra.nearest import missing
from spectra.record.files import write_tensors

CHECKPOINT_FORMAT = "biggan-1"
_FILE_NAME = re.compile(r"step-(\d{8,15})\.safetensors", re.ASCII)


class CheckpointError(UserError):
    """A file that is not a complete checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: the state's tensors after `step` G steps, and the configuration of its run."""

    path: Path
    step: int
    config: Config
    digest: str
    finite: bool
    tensors: dict[str, Tensor]


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], step: int, config: Mapping[str, Any]) -> str:
    """Write the checkpoint whole, on the disk when this returns; return its digest.

    Raises `UserError` where it cannot be written (a full disk); `path` and all else are then as they were.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in whole.values())
    metadata = {
        "format": CHECKPOINT_FORMAT,
        "step": str(step),
        "finite": json.dumps(finite),
        "config": json.dumps(config, sort_keys=True),
    }
    metadata["digest"] = digest(whole, metadata)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, whole, metadata)
    except OSError as error:
        raise UserError(
            f"could not save the checkpoint {path}: {error}. Earlier checkpoints are intact. Free space or choose "
            f"another --out, then resume."
        ) from error
    return metadata["digest"]


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """BLAKE2b over the metadata (but the digest itself) and every tensor's name, dtype, shape and bytes."""
    hash_ = hashlib.blake2b(digest_size=32)
    for key in sorted(set(metadata) - {"digest"}):
        hash_.update(f"{key}={metadata[key]}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        hash_.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        hash_.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hash_.hexdigest()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises `CheckpointError` where the file is missing, torn, altered, or of another kind: what is wrong, and what
    to do about it; and `UserError` where the system does not open it.
    """
    from safetensors import SafetensorError

    path = Path(path)
    if said := missing(path):
        raise CheckpointError(f"{said} Expected a file RUN/checkpoints/step-*.safetensors.")
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file: expected RUN/checkpoints/step-*.safetensors.")
    try:
        with _opened(path) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({error}): it was cut short or altered, or is another kind of "
            f"file. Use another checkpoint. (Of a file by torch.save spectra scan shows the weights, and biggan-import "
            f"makes a run of one that it knows.)"
        ) from error
    if metadata.get("format") != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path} has the format {metadata.get('format')!r}, expected {CHECKPOINT_FORMAT!r}: it was "
            f"written by another program, or by another version of this one."
        )
    if digest(tensors, metadata) != metadata.get("digest"):
        raise CheckpointError(
            f"{path} does not verify: its contents differ from the stored digest, so it was altered after it was "
            "written."
            f" Use an earlier checkpoint."
        )
    try:
        step, config, finite = int(metadata["step"]), json.loads(metadata["config"]), json.loads(metadata["finite"])
        if step < 0 or not isinstance(config, dict) or not isinstance(finite, bool):
            raise TypeError("a value of another kind")
        checked = from_dict(config)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, UserError) as error:
        raise CheckpointError(
            f"{path} is whole, but what it says of its step and configuration cannot be used ({error}): another "
            f"program made it, or another version of this one. Use another checkpoint."
        ) from error
    return Checkpoint(path, step, checked, metadata["digest"], finite, tensors)


def peek(path: Path) -> dict[str, str]:
    """The metadata alone, unverified; empty where the file is damaged. Raises `UserError` where it is not opened."""
    from safetensors import SafetensorError

    if not path.is_file():
        return {}
    try:
        with _opened(path) as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, ValueError):
        return {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The safetensors file. Raises `UserError` where the system does not open it (too many open files, no permission):
    that says nothing of its contents, so an earlier checkpoint is no substitute. safetensors calls it missing then."""
    from safetensors import safe_open

    try:
        with open(path, "rb"):
            file = safe_open(path, framework="pt")
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} cannot be opened: {error}. Change that, and give the same command again.") from error
    with file:
        yield file


def peeked_step(path: Path) -> int | None:
    """The step of a checkpoint by its metadata alone, unverified; None where there is none."""
    step = peek(path).get("step", "")
    return int(step) if re.fullmatch(r"\d{1,15}", step, re.ASCII) else None


def checkpoint_paths(run: Path) -> list[Path]:
    """The run's checkpoint files, oldest first."""
    return sorted(path for path in (run / "checkpoints").glob("step-*.safetensors") if _FILE_NAME.fullmatch(path.name))


def _frozen(run: Path) -> list[Path]:
    found = (run / "checkpoints").glob("frozen-*/step-*.safetensors")
    return [path for path in found if _FILE_NAME.fullmatch(path.name)]


def all_checkpoints(run: Path) -> dict[int, Path]:
    """Every checkpoint file of a run by step, including those of rings that an alarm kept."""
    frozen = sorted(_frozen(run))
    return dict(sorted({step_of(path): path for path in [*frozen, *checkpoint_paths(run)]}.items()))


def step_of(path: Path) -> int:
    """The step in a checkpoint's file name."""
    return int(path.stem.removeprefix("step-"))


def saved_steps(run: Path) -> set[int]:
    """The steps that the run can be resumed or branched at: its files, those of frozen rings, and the best one."""
    steps = {step_of(path) for path in (*checkpoint_paths(run), *_frozen(run))}
    best = peeked_step(run / "checkpoints" / "best.safetensors")
    return steps if best is None else steps | {best}


def checkpoint_at(place: Path) -> Checkpoint:
    """A checkpoint file, or a run directory's newest. Raises as `read_checkpoint` and `newest_checkpoint` do."""
    check_exists(place)
    return newest_checkpoint(place)[0] if place.is_dir() else read_checkpoint(place)


def newest_checkpoint(run: Path) -> tuple[Checkpoint, list[str]]:
    """The newest checkpoint of a run that verifies and is finite, and why each newer one was skipped.

    Where every whole one holds NaN or Inf, the newest of these. Raises `CheckpointError` where none is whole.
    """
    if not (run / "config.yaml").exists() and not (run / "checkpoints").exists():
        raise CheckpointError(f"{run} is not a run directory: it has no checkpoints. Give an earlier run's --out.")
    skipped: list[str] = []
    fallback: Checkpoint | None = None
    for path in reversed(checkpoint_paths(run)):
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError as error:
            skipped.append(str(error))
            continue
        if checkpoint.step != step_of(path):
            skipped.append(f"{path} holds step {checkpoint.step}: it was renamed.")
            continue
        if checkpoint.finite:
            return checkpoint, skipped
        skipped.append(f"{path} holds NaN or Inf.")
        fallback = fallback or checkpoint
    if fallback is not None:
        return fallback, [*skipped, f"No checkpoint is finite; taking {fallback.path}."]
    reasons = " ".join(skipped) or "It has none."
    raise CheckpointError(
        f"{run} has no checkpoint to continue from. {reasons} To start again from step 0, move its checkpoints away."
    )
