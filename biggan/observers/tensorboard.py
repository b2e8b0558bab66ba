"""A run's scalars, scores and sample grids in TensorBoard, in addition to `spectra.draw.panels`.

TensorBoard groups tags by what is before the slash, sorts the groups, and opens the first two: these are numbered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from biggan.training.observer import Observer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from biggan.run.directory import RunDirectory
    from biggan.training.trainer import Trainer

TRAINING, SAMPLES_TAG = "1-training", "2-pictures/samples"


class TensorBoard(Observer):
    """Thinned scalars and sample grids for TensorBoard. It must come after `SampleGrids`, whose pictures it shows.

    `writer`: that of `open_log`, which the monitor's panels share; None: one of its own.
    """

    def __init__(self, writer: SummaryWriter | None = None) -> None:
        self.writer = writer

    def on_start(self, trainer: Trainer) -> None:
        """Begin with the grid of the untrained networks, if there is one."""
        self.every, self.samples = trainer.config.tensorboard.every, trainer.run.samples
        step = trainer.state.step
        self.writer = self.writer or open_log(trainer.run, step)
        if step == 0:
            self._show_grid(0)

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """Write the scalars every `tensorboard.every` steps, and a grid that was drawn at this step."""
        assert self.writer is not None
        if step % self.every == 0:
            for name, value in stats.items():
                self.writer.add_scalar(tag_of(name), value, step)
        self._show_grid(step)

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Write the scores of an evaluation."""
        if event["event"] == "evaluation" and self.writer is not None:
            for name, value in event["scores"].items():
                self.writer.add_scalar(tag_of(f"eval/{event['weights']}/{name}"), float(value), event["step"])

    def on_end(self, status: str) -> None:
        """Write what is still buffered."""
        if self.writer is not None:
            self.writer.close()

    def _show_grid(self, step: int) -> None:
        grid = self.samples / f"step-{step:08d}.png"
        if grid.exists():
            import numpy as np
            from PIL import Image

            assert self.writer is not None
            with Image.open(grid) as image:
                self.writer.add_image(SAMPLES_TAG, np.asarray(image), step, dataformats="HWC")


def open_log(run: RunDirectory, step: int) -> SummaryWriter:
    """The log of a run at `step`, in a folder with the run's name, which is what TensorBoard then calls it. What an
    earlier session wrote past this step is purged."""
    from torch.utils.tensorboard import SummaryWriter

    name = run.path.resolve().name or "run"
    return SummaryWriter(str(run.tensorboard / name), purge_step=step + 1 if step else 0)


def tag_of(name: str) -> str:
    """What a scalar of the record is called in TensorBoard: losses and FIDs come first there."""
    kind, _, rest = name.partition("/")
    if kind == "loss":
        return f"{TRAINING}/loss_{rest}"
    if kind == "eval" and rest.endswith("/fid"):
        return f"{TRAINING}/FID_{'average' if rest.startswith('ema/') else rest.removesuffix('/fid')}"
    return name
