"""Puts measurements on a training loop and leaves it bit for bit as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.records import RecordWriter

if TYPE_CHECKING:
    from torch import nn


class Monitor:
    """Records the scalars it is handed at each step."""

    def __init__(
        self, networks: Mapping[str, nn.Module], run: Path, *, start_step: int = 0, every: int = 20, top_k: int = 3
    ) -> None:
        self.networks, self.every, self.top_k = dict(networks), every, top_k
        self.run, self.start_step = Path(run), start_step

    def on_start(self, trainer: Any) -> None:
        self.record = RecordWriter(self.run, self.start_step)

    def before_update(self, network: str, k: int = 0) -> None:
        pass

    def after_backward(self, network: str, k: int = 0) -> None:
        pass

    def on_event(self, event: Any) -> None:
        pass

    def on_checkpoint(self, step: int, path: Path) -> None:
        pass

    def after_step(self, step: int, scalars: Mapping[str, float] | None = None) -> None:
        self.record.append(step, scalars or {})

    def on_end(self, status: str) -> None:
        self.record.close()
