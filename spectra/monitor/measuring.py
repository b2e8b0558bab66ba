"""All probes at one step. What fails for one layer costs no other layer, and no other probe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectra.linalg.result import TopSingularValues
    from spectra.monitor.probes import Probe
    from spectra.monitor.snapshot import Snapshot


@dataclass(frozen=True)
class Failure:
    """What could not be measured: a layer's name or none (all of them), the probe or none, and the reason."""

    layer: str | None
    probe: str | None
    reason: str


def run_probes(probes: Sequence[Probe], snapshot: Snapshot) -> tuple[dict[str, float], list[Failure]]:
    """Every probe's numbers, fetched from each device in one transfer, and what failed.

    A probe that raises is asked again for each layer alone, unless its numbers are of all layers together (its frame
    is "scalars").
    """
    numbers: dict[str, Any] = {}
    failures: list[Failure] = []
    for probe in probes:
        try:
            numbers |= probe.measure(snapshot)
        except Exception as error:
            failures += _by_layer(probe, snapshot, numbers, error)
    return _as_floats(numbers, failures), failures


def top_found(snapshot: Snapshot) -> dict[str, TopSingularValues]:
    """The singular triplets that the probes had computed, by matrix."""
    parts = [snapshot] if "top" in vars(snapshot) else [p for p in vars(snapshot).get("parts", []) if "top" in vars(p)]
    return {m.name: found for part in parts for m, found in zip(part.matrices, part.top, strict=True)}


def split(snapshot: Snapshot) -> Iterator[Snapshot]:
    """A snapshot for each parameter with its matrix, and for each matrix that is not trained."""
    trained: dict[str, list[Any]] = {name: [] for name in snapshot.parameters}
    for matrix in snapshot.matrices:
        name = snapshot.name_of(matrix)
        if name in trained:
            trained[name].append(matrix)
        else:
            yield replace(snapshot, matrices=[matrix], parameters={}, gradients={}, before={})
    for name, matrices in trained.items():
        of = [_only(name, one) for one in (snapshot.parameters, snapshot.gradients, snapshot.before)]
        yield replace(snapshot, matrices=matrices, parameters=of[0], gradients=of[1], before=of[2])


def _only(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name]} if name in values else {}


def _by_layer(probe: Probe, snapshot: Snapshot, numbers: dict[str, Any], error: Exception) -> list[Failure]:
    """Ask a probe that failed with `error` for each layer alone; what it gives goes to `numbers`."""
    kind = type(probe).__name__
    everything = [Failure(None, kind, error_in_words(error))]
    if probe.frame == "scalars":
        return everything
    failures = []
    for part in snapshot.parts:
        try:
            numbers |= probe.measure(part)
        except Exception as one:
            layer = part.matrices[0].name if part.matrices else next(iter(part.parameters))
            failures.append(Failure(layer, kind, error_in_words(one)))
    return failures if len(failures) < len(snapshot.parts) else everything


def _as_floats(numbers: Mapping[str, Any], failures: list[Failure]) -> dict[str, float]:
    import torch

    by_device: dict[Any, list[str]] = {}
    for name, value in numbers.items():
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            by_device.setdefault(value.device, []).append(name)
    fetched: dict[str, Any] = dict(numbers)
    for names in by_device.values():
        values = torch.stack([numbers[name].detach().double().reshape(()) for name in names]).tolist()
        fetched |= dict(zip(names, values, strict=True))
    found = {}
    for name, value in fetched.items():
        try:
            found[name] = float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            failures.append(Failure(name, None, f"it is not one number: {error_in_words(error)}"))
    return found


def error_in_words(error: BaseException) -> str:
    """An error as one line of an event."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": ")
