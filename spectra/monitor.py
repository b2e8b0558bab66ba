"""Puts measurements on a training loop and leaves it bit for bit as it was.

For now: the scalars it is handed at every step, and at a schedule each weight matrix's top singular values
(Section 4.1), Frobenius norm, and Spectral Normalization's own estimate of sigma_0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.records import RecordWriter

if TYPE_CHECKING:
    from torch import nn


class Monitor:
    """Measures named networks every `every` steps into the record of a run directory.

    Series are named `sigma0/G.blocks.0.conv1`, `sigma1/...`, `frobenius/...`, `sigma_estimate/...`; a value that did
    not converge is recorded as it is, and so are NaN and Inf. An empty mapping of networks records scalars alone.
    The methods `on_*` make it an observer of a trainer that has such events; a bare loop calls `after_step` and
    `close`.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        run: str | Path,
        *,
        start_step: int = 0,
        every: int = 20,
        top_k: int = 3,
    ) -> None:
        self.networks, self.every, self.top_k = dict(networks), every, top_k
        self.record = RecordWriter(Path(run), start_step)
        self._starts: list[Any] | None = None

    def after_step(self, step: int, scalars: Mapping[str, float] | None = None) -> None:
        """Record the scalars of `step`, and measure the networks where the schedule says so."""
        values = dict(scalars or {})
        if self.networks and step % self.every == 0:
            values |= self.measure()
        self.record.append(step, values)

    def measure(self) -> dict[str, float]:
        """Every weight matrix's numbers now, by series name."""
        from spectra import top_singular_values_batch, weight_matrices

        matrices = weight_matrices(self.networks)
        found = top_singular_values_batch([m.raw() for m in matrices], self.top_k, starts=self._starts)
        self._starts = list(found)
        values: dict[str, float] = {}
        for matrix, result in zip(matrices, found, strict=True):
            for index, sigma in enumerate(result.values.tolist()):
                values[f"sigma{index}/{matrix.name}"] = sigma
            values[f"frobenius/{matrix.name}"] = float(matrix.raw().double().norm())
            if (estimate := matrix.sigma_estimate()) is not None:
                values[f"sigma_estimate/{matrix.name}"] = estimate
        return values

    def close(self) -> None:
        """Write what is held back and end the segment."""
        self.record.close()

    def on_start(self, trainer: Any) -> None:
        """Nothing: the record is open."""

    def before_update(self, network: str, k: int = 0) -> None:
        """Nothing yet."""

    def after_backward(self, network: str, k: int = 0) -> None:
        """Nothing yet."""

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Nothing yet."""

    def on_checkpoint(self, step: int, path: Path) -> None:
        """A run resumed from here has what came before it, and measures what an unbroken one does: no warm starts."""
        self.record.flush()
        self._starts = None

    def on_end(self, status: str) -> None:
        """The run ends."""
        self.close()
