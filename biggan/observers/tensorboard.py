"""A run's scalars, scores and sample grids in TensorBoard, in addition to `spectra.draw.panels`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from biggan.training.observer import Observer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from biggan.training.trainer import Trainer


class TensorBoard(Observer):
    """Thinned scalars and sample grids for TensorBoard. It must come after `SampleGrids`, whose pictures it shows."""

    writer: SummaryWriter | None = None

    def on_start(self, trainer: Trainer) -> None:
        """Open the log; what an earlier session wrote past this step is purged."""
        from torch.utils.tensorboard import SummaryWriter

        self.every, self.samples = trainer.config.tensorboard.every, trainer.run.samples
        step = trainer.state.step
        self.writer = SummaryWriter(str(trainer.run.tensorboard), purge_step=step + 1 if step else None)

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """Write the scalars every `tensorboard.every` steps, and a grid that was drawn at this step."""
        assert self.writer is not None
        if step % self.every == 0:
            for name, value in stats.items():
                self.writer.add_scalar(name, value, step)
        grid = self.samples / f"step-{step:08d}.png"
        if grid.exists():
            import numpy as np
            from PIL import Image

            with Image.open(grid) as image:
                self.writer.add_image("samples", np.asarray(image), step, dataformats="HWC")

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Write the scores of an evaluation."""
        if event["event"] == "evaluation" and self.writer is not None:
            for name, value in event["scores"].items():
                self.writer.add_scalar(f"eval/{event['weights']}/{name}", float(value), event["step"])

    def on_end(self, status: str) -> None:
        """Write what is still buffered."""
        if self.writer is not None:
            self.writer.close()
