"""Writes many samples to one .npz file or a folder of PNG files: sharded over processes and resumable.

Image i is a function of the checkpoint, the seed and i. Under torchrun (RANK and WORLD_SIZE) every process makes its
share, and the last to finish assembles the file; the processes need no connection to each other.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from biggan.data.images import to_uint8
from biggan.errors import UserError
from biggan.evaluation.generate import BLOCK, LatentSpec, block_count, generate
from biggan.evaluation.shares import SampleShard
from biggan.evaluation.standing import sampling_copy
from biggan.evaluation.stored_statistics import with_stored_statistics
from biggan.networks.base import GeneratorNetwork
from biggan.objective.latents import TruncationKind
from biggan.run.checkpoint import Checkpoint
from biggan.run.files import Lock
from spectra.record.files import make_folder, remove_partial, replacing, write_text

FACTS = "samples.json"


@dataclass(frozen=True)
class ExportSpec:
    """The settings of the samples, stored beside them and compared when a later call continues them."""

    checkpoint: str
    """The digest of the checkpoint."""
    step: int
    weights: str
    num: int
    seed: int
    truncation: float | None
    standing_passes: int
    class_names: list[str] = field(default_factory=list)
    """By the classes' numbers."""
    truncation_kind: TruncationKind = "threshold"
    statistics: Literal["standing", "stored"] = "standing"

    def folders(self, classes: int) -> list[str]:
        """Each class's folder of PNG files: its name, where training would give such folders the same numbers again.

        Else, where the names do not stand in the order of the classes (as text) or are no file names, its number before
        its name, or alone.
        """
        numbers = [f"{c:04d}" for c in range(classes)]
        if len(self.class_names) != classes:
            return numbers
        plain = [re.sub(r"[^\w. -]", "_", name).strip(". ") for name in self.class_names]
        if plain == self.class_names == sorted(set(plain)) and "" not in plain:
            return plain
        return [f"{number}-{name}" for number, name in zip(numbers, plain, strict=True)]


def export_samples(
    checkpoint: Checkpoint,
    G: GeneratorNetwork,
    order: ExportSpec,
    out: Path,
    share: SampleShard | None = None,
    *,
    advance: Callable[[int], None] = lambda images: None,
) -> bool:
    """Make this process's share of the images that are not there yet; whether all are there now.

    `out` ending in .npz is one file with `images` (N, R, R, 3), uint8, `labels` (N,), int64, and `class_names` by these
    numbers; anything else a folder with one sub-folder a class (`ExportSpec.folders`), as training reads it. Until all
    images are there, those of a file lie in OUT.parts/.
    Raises `UserError` if `out` holds samples with other settings.
    """
    share = share or SampleShard()
    as_file = out.suffix == ".npz"
    folder = out.with_name(out.name + ".parts") if as_file else out
    if as_file and out.exists():
        _check_same(_facts_of(out), order, out)
        return True
    _prepare(folder, order)
    network = _under_statistics(checkpoint, G, order)
    kind = order.truncation_kind
    draw = LatentSpec(checkpoint.config.latents, order.seed, checkpoint.step, order.truncation, kind)
    is_there, write = (_part_is_there, _write_part) if as_file else (_pictures_are_there, _write_pictures)
    folders = order.folders(G.classes)
    missing = [block for block in share.blocks(order.num) if not is_there(folder, block, order.num, folders)]
    for first, images, labels in generate(network, draw, order.num, missing):
        write(folder, first, to_uint8(images), labels.numpy(), folders)
        advance(len(labels))
    if not all(is_there(folder, block, order.num, folders) for block in range(block_count(order.num))):
        return False
    for place in (folder, *(folder / name for name in folders)):  # all is there: what a killed process left is nothing
        remove_partial(place)
    if as_file:
        _put_together(folder, out, order, (G.resolution, G.resolution, 3))
    return True


def _under_statistics(checkpoint: Checkpoint, G: GeneratorNetwork, order: ExportSpec) -> GeneratorNetwork:
    """A copy of G in eval mode under the BatchNorm statistics that are asked for."""
    if order.statistics == "stored":
        return with_stored_statistics(G, checkpoint.tensors, order.truncation, checkpoint.path)
    return sampling_copy(
        G,
        distribution=checkpoint.config.latents,
        step=checkpoint.step,
        passes=order.standing_passes,
        seed=order.seed,
        refresh_sigma=order.weights == "ema",
    )


def _prepare(folder: Path, order: ExportSpec) -> None:
    facts = folder / FACTS
    try:
        make_folder(folder)
        if facts.is_file():
            _check_same(json.loads(facts.read_text(encoding="utf-8")), order, folder)
            return
        if any(path.name != FACTS and not path.name.startswith(".") for path in folder.iterdir()):
            raise UserError(f"{folder} is not empty, and was not made by biggan-sample. Choose another --out.")
        write_text(facts, json.dumps(asdict(order), indent=1) + "\n")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot use {folder}: {error}. Choose another --out.") from error


def _check_same(facts: Any, order: ExportSpec, place: Path) -> None:
    if not isinstance(facts, dict):
        raise UserError(f"{place} exists, but was not made by biggan-sample. Choose another --out.")
    there = {"truncation_kind": "threshold", "statistics": "standing"} | facts  # of samples made before these were
    other = {name: (there.get(name), value) for name, value in asdict(order).items() if there.get(name) != value}
    if other:
        listed = "; ".join(f"{name}: {old} there, {new} now" for name, (old, new) in other.items())
        raise UserError(f"{place} has samples with other settings ({listed}). Choose another --out, or delete it.")


def _part(folder: Path, block: int) -> Path:
    return folder / f"{block:08d}.npz"


def _part_is_there(folder: Path, block: int, num: int, folders: list[str]) -> bool:
    return _part(folder, block).is_file()


def _write_part(folder: Path, first: int, images: np.ndarray, labels: np.ndarray, folders: list[str]) -> None:
    with replacing(_part(folder, first // BLOCK)) as temporary, open(temporary, "wb") as file:
        np.savez(file, images=images, labels=labels)


def _pictures_are_there(folder: Path, block: int, num: int, folders: list[str]) -> bool:
    numbers = range(block * BLOCK, min((block + 1) * BLOCK, num))
    return all((folder / folders[i % len(folders)] / f"{i:08d}.png").is_file() for i in numbers)


def _write_pictures(folder: Path, first: int, images: np.ndarray, labels: np.ndarray, folders: list[str]) -> None:
    from PIL import Image

    for offset, (pixels, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        path = folder / folders[label] / f"{first + offset:08d}.png"
        path.parent.mkdir(exist_ok=True)
        with replacing(path, durable=False) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")


def _facts_of(path: Path) -> Any:
    try:
        with np.load(path) as archive:
            return json.loads(str(archive["facts"]))
    except (OSError, ValueError, KeyError, EOFError, RecursionError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"{path} exists, but was not made by biggan-sample ({error}). Choose another --out.") from error


def _put_together(folder: Path, out: Path, order: ExportSpec, shape: tuple[int, int, int]) -> None:
    """One file of all parts, written block by block; by one process alone."""
    with Lock(out.with_name(f".{out.name}.lock"), wait=True, remove=True):
        if not out.exists():
            remove_partial(out.parent, out.name)
            parts = [_part(folder, block) for block in range(block_count(order.num))]
            with replacing(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
                _stream(archive, "images", (order.num, *shape), np.uint8, (np.load(p)["images"] for p in parts))
                _stream(archive, "labels", (order.num,), np.int64, (np.load(p)["labels"] for p in parts))
                names, facts = np.array(order.class_names, dtype=np.str_), np.array(json.dumps(asdict(order)))
                _stream(archive, "class_names", names.shape, names.dtype, [names])
                _stream(archive, "facts", (), facts.dtype, [facts])
            shutil.rmtree(folder, ignore_errors=True)


def _stream(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.typing.DTypeLike, parts: Iterable[np.ndarray]
) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_2_0(file, header)
        for part in parts:
            file.write(part.tobytes())
