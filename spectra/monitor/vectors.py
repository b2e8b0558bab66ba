"""The top singular vectors of a run's last measurement, in a small file beside its record.

How far they turned by the next measurement is recorded (`spectra.monitor.probes.SingularVectorAngle`), also by
a session that goes on from a checkpoint: it reads here what an unbroken one remembers. One file a measurement,
`records/vectors-STEP.safetensors`, written whole; it goes when the next is written, unless a checkpoint
lies between the two.
"""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spectra.record.files import remove_partial, write_tensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from spectra.linalg.result import TopSingularValues

FILE_NAME = re.compile(r"vectors-(\d{8,})\.safetensors")


@dataclass(frozen=True, eq=False)
class Directions:
    """The k top singular vectors of one matrix, as columns: left (rows, k) and right (columns, k); and the directions
    from which it is followed, (shorter side, j), where it is."""

    left: Tensor
    right: Tensor
    subspace: Tensor | None = None


class Kept:
    """What a monitor remembers from one measurement to the next: `last`, the singular vectors by matrix.

    Args:
        run: the run directory, whose record exists.
        start_step: the step that is gone on from; what was measured after it is removed.
        devices: where each matrix lies.
        saved_steps: gives the steps that the run can be resumed at now, to whose saving `flush` is called before. None:
            those told to `saved`, in any session; every measurement is then written at once.
        follow: whether the directions are kept from which matrices are followed.
        generation: of the watched layers, as they are now.
    """

    def __init__(
        self,
        run: Path,
        start_step: int,
        devices: Mapping[str, torch.device],
        saved_steps: Callable[[], Iterable[int]] | None,
        follow: bool = False,
        generation: int = 0,
    ) -> None:
        forget_directions_after(run, start_step)
        self._run, self._saved_steps, self._follow = run, saved_steps, follow
        self._unwritten: int | None = None
        self._generation = generation
        self._saved = {start_step, *_files(run)}
        self.last = {
            name: _on(one, devices[name]) for name, one in read_directions(run, start_step).items() if name in devices
        }

    def saved(self, step: int) -> None:
        """The state after `step` can be gone on from."""
        self._saved.add(step)

    def keep(self, step: int, found: Mapping[str, TopSingularValues], generation: int = 0) -> None:
        """Remember the vectors measured at `step`, here and, by the next `flush`, in the run directory."""
        self.last = {  # copied as they are read back: the order of a sum's terms, and so its bits, depends on strides
            name: Directions(
                _contiguous(one.left), _contiguous(one.right), _contiguous(one.subspace) if self._follow else None
            )
            for name, one in found.items()
        }
        self._generation = generation
        self._unwritten = step
        if self._saved_steps is None:
            self.flush()

    def flush(self) -> None:
        """Write what is remembered to the run directory, where it is not there yet."""
        if self._unwritten is not None:
            write_directions(self._run, self._unwritten, self.last)
            keep_directions_of(self._run, self._saved_steps() if self._saved_steps else self._saved)
            self._unwritten = None

    def followed(self, generation: int) -> dict[str, Tensor]:
        """By matrix what `track` starts from; empty unless matrices are followed, and where layers have been changed
        since (`WatchedNetworks.generation`): one of the same name may be another."""
        if not self._follow or generation != self._generation:
            return {}
        known = {name: one.subspace for name, one in self.last.items()}
        return {name: subspace for name, subspace in known.items() if subspace is not None}


def _on(one: Directions, device: torch.device) -> Directions:
    subspace = None if one.subspace is None else one.subspace.to(device)
    return Directions(one.left.to(device), one.right.to(device), subspace)


def _contiguous(tensor: Tensor) -> Tensor:
    import torch

    return tensor.clone(memory_format=torch.contiguous_format)


def write_directions(run: Path, step: int, found: Mapping[str, Directions]) -> None:
    """Keep the vectors measured at `step`, by matrix. Raises `OSError` where the system refuses."""
    tensors: dict[str, Tensor] = {}
    for name, one in found.items():
        tensors |= {f"left/{name}": one.left.cpu(), f"right/{name}": one.right.cpu()}
        if one.subspace is not None:
            tensors[f"subspace/{name}"] = one.subspace.cpu()
    write_tensors(_path(run, step), tensors, {"crc32": _crc(tensors)})


def read_directions(run: str | Path, step: int) -> dict[str, Directions]:
    """The vectors of the last measurement up to `step`, by matrix; empty where there are none, or damaged ones."""
    from safetensors import SafetensorError, safe_open

    last = max((measured for measured in _files(Path(run)) if measured <= step), default=None)
    if last is None:
        return {}
    try:
        with safe_open(_path(Path(run), last), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            known = (file.metadata() or {}).get("crc32")  # older files have none
        if known is not None and known != _crc(tensors):
            return {}
        names = [name.removeprefix("left/") for name in tensors if name.startswith("left/")]
        return {
            name: Directions(tensors[f"left/{name}"], tensors[f"right/{name}"], tensors.get(f"subspace/{name}"))
            for name in names
        }
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError):
        return {}


def _crc(tensors: Mapping[str, Tensor]) -> str:
    """A checksum of every tensor's name, shape and bytes."""
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(f"{name} {list(tensors[name].shape)}\n".encode(), crc)
        crc = zlib.crc32(tensors[name].contiguous().numpy().data, crc)
    return f"{crc:08x}"


def copy_directions(run: Path, to: Path, step: int) -> None:
    """Give the run `to`, which begins where `run` was at `step`, the vectors of the last measurement up to there."""
    last = max((measured for measured in _files(run) if measured <= step), default=None)
    if last is not None:
        (to / "records").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_path(run, last), _path(to, last))


def forget_directions_after(run: Path, step: int) -> None:
    """Remove what was measured after `step`, before a session goes on from there."""
    remove_partial(run / "records", "vectors-*")
    for measured, path in _files(run).items():
        if measured > step:
            path.unlink(missing_ok=True)


def keep_directions_of(run: Path, saved: Iterable[int]) -> None:
    """Remove all but the newest, and those that the checkpoints of the steps `saved` go on from."""
    measured = sorted(_files(run))
    needed = {max((m for m in measured if m <= step), default=-1) for step in saved} | set(measured[-1:])
    for step in set(measured) - needed:
        _path(run, step).unlink(missing_ok=True)


def _files(run: Path) -> dict[int, Path]:
    found = {path: FILE_NAME.fullmatch(path.name) for path in (run / "records").glob("vectors-*.safetensors")}
    return {int(match[1]): path for path, match in found.items() if match}


def _path(run: Path, step: int) -> Path:
    return run / "records" / f"vectors-{step:08d}.safetensors"
