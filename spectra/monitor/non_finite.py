"""The first NaN or Inf of a run: in which scalar, gradient or parameter, and at which step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.record.events import read_event_lines

if TYPE_CHECKING:
    from torch import Tensor

KIND = "first_non_finite"
MAY_BE_NON_FINITE = frozenset({"relative_update", "gradient_share", "update_share"})
"""Measured quantities that divide by what may be 0."""
MOST_NAMES = 10


class FirstNonFinite:
    """Finds it once in a run; the tensors are searched only where a number of the step says that there may be one.

    Args:
        run: the run directory, whose events tell whether it was found before.
        start_step: the step from which the run goes on; events after it do not count.
    """

    def __init__(self, run: str | Path, start_step: int = 0) -> None:
        self.found = any(
            event["event"] == KIND and event["step"] <= start_step and not event.get("superseded")
            for event in read_event_lines(run)
        )

    def look(
        self,
        step: int,
        scalars: Mapping[str, float],
        measured: Mapping[str, float],
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        before: Mapping[str, Tensor],
    ) -> dict[str, Any] | None:
        """The event's fields, at the step at which there is something to tell, else None.

        What is told is what came first within the step: a parameter that was bad before it; a scalar (the loss); a
        gradient, of the layers with one the nearest to the output, where a backward pass meets it first; a parameter
        after the update. Gradients alone do not count while every parameter stays finite, because that update was
        skipped, as loss scaling does on purpose; nor do the gradient norms of a network for which the scalar
        `skipped/NETWORK` says the same.

        Args:
            step: the step that is done.
            scalars: its scalars, as the caller gave them.
            measured: the probes' numbers; empty where the step was not measured.
            parameters: those that are trained, as they are now.
            gradients: copies from before clipping; where there are none, those that the parameters still have are read.
            before: copies of the parameters from before the step; empty where none were made.
        """
        if self.found:
            return None
        bad = {name: value for name, value in scalars.items() if not math.isfinite(value)}
        skipped = [name.partition("/")[2] for name, value in scalars.items() if name.startswith("skipped/") and value]
        for network in skipped:
            bad.pop(f"gradient_norm/{network}", None)
        if not bad and not any(map(_is_suspect, measured.items())):
            return None
        present = {name: p.grad for name, p in parameters.items() if p.grad is not None} | dict(gradients)
        updated = {name: g for name, g in present.items() if name.partition(".")[0] not in skipped}
        first = _first(bad, _broken(updated), _broken(parameters), _broken(before))
        if first is None:
            return None
        self.found = True
        return first


def _first(
    scalars: Mapping[str, float], gradients: Mapping[str, str], parameters: Mapping[str, str], before: Mapping[str, str]
) -> dict[str, Any] | None:
    """Which of the bad ones came first, and how many of each kind there are."""
    untouched = [name for name in gradients if name not in parameters]  # by an update that was bad itself
    scalar = next(iter(scalars), None)
    if before:
        what, name, value = "parameter", *next(iter(before.items()))
    elif parameters and untouched:  # it can only be from an earlier step
        what, name, value = "parameter", *next(iter(parameters.items()))
    elif gradients and scalar is not None and "grad" in scalar.lower():  # the norm of one of them
        mine = [name for name in gradients if name.partition(".")[0] in scalar.split("/")]
        what, name = "gradient", (mine or list(gradients))[-1]
        value = gradients[name]
    elif scalar is not None:
        what, name, value = "scalar", scalar, str(scalars[scalar])
    elif gradients and parameters:
        what, (name, value) = "gradient", list(gradients.items())[-1]
    elif parameters:
        what, name, value = "parameter", *next(iter(parameters.items()))
    else:
        return None
    fields: dict[str, Any] = {"what": what, "name": name, "value": value, "scalars": list(scalars)[:MOST_NAMES]}
    return fields | {"gradients": len(gradients), "parameters": len(parameters)}


def _is_suspect(measured: tuple[str, float]) -> bool:
    name, value = measured
    return not math.isfinite(value) and name.partition("/")[0] not in MAY_BE_NON_FINITE


def _broken(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """ "nan", "inf" or "-inf" by the name of each tensor that has such an entry, in order; NaN where it has several."""
    found = {}
    for name, tensor in tensors.items():
        value = _worst(tensor)
        if value is not None:
            found[name] = value
    return found


def _worst(tensor: Tensor) -> str | None:
    """None also for a tensor without entries, or of a kind that cannot be searched."""
    import torch

    try:
        entries = tensor.detach()
        if hasattr(entries, "to_local"):  # this process's shard; a reduction over all would wait for the others
            entries = entries.to_local()
        entries = entries.coalesce().values() if entries.is_sparse else entries
        if torch.isfinite(entries).all():
            return None
        if torch.isnan(entries).any():
            return "nan"
        return "inf" if (entries == math.inf).any() else "-inf"
    except (RuntimeError, TypeError):  # on the meta device, say
        return None
