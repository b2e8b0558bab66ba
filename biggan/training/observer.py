"""What may be attached to a trainer. Observers read; whoever needs to change training is configuration."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.run.directory import remove_later

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from biggan.training.trainer import Trainer


class Observer:
    """Base of all observers; each event does nothing by default.

    An observer may call `trainer.emit(kind, **fields)`; it may not touch the state, modes, gradients, or global
    random state: a run's bits are the same with and without it.
    """

    def on_start(self, trainer: Trainer) -> None:
        """Training is about to begin or to go on, at `trainer.state.step`."""

    def before_update(self, network: str, k: int) -> None:
        """Update `k` of network "G" or "D" begins; gradients are those of its last update."""

    def after_backward(self, network: str, k: int) -> None:
        """Its gradients are complete: after accumulation, before clipping and the optimizer's step."""

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """Step `step` (from 1) is done: D's updates, G's, the average. `stats` are numbers on the global batch."""

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Somebody emitted an event: its `event`, `step`, `time`, and further fields."""

    def on_checkpoint(self, step: int, path: Path) -> None:
        """The state after `step` was saved."""

    def on_end(self, status: str) -> None:
        """Training ends: "finished", "interrupted", "stopped" (non-finite numbers), or "failed" (an error is raised).

        After an error it may be called a second time, and before `on_start`.
        """


class Observers(Observer):
    """Several observers as one, called in order."""

    def __init__(self, members: list[Observer]) -> None:
        self.members = members

    def on_start(self, trainer: Trainer) -> None:
        for member in self.members:
            member.on_start(trainer)

    def before_update(self, network: str, k: int) -> None:
        for member in self.members:
            member.before_update(network, k)

    def after_backward(self, network: str, k: int) -> None:
        for member in self.members:
            member.after_backward(network, k)

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        for member in self.members:
            member.after_step(step, stats)

    def on_event(self, event: Mapping[str, Any]) -> None:
        for member in self.members:
            member.on_event(event)

    def on_checkpoint(self, step: int, path: Path) -> None:
        for member in self.members:
            member.on_checkpoint(step, path)

    def on_end(self, status: str) -> None:
        """Every member is told; after an error, also where one of them has an error of its own."""
        for member in self.members:
            with suppress(Exception) if status == "failed" else nullcontext():
                member.on_end(status)


class SampleGrids(Observer):
    """Draws images of fixed latents, classes by rows, of G and of its average, into samples/step-*.png."""

    def on_start(self, trainer: Trainer) -> None:
        """Remove grids of steps that are about to be done again."""
        self.trainer, self.config = trainer, trainer.config.samples
        remove_later(trainer.run.samples, trainer.state.step)

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """Draw every `samples.every` steps, and at the end."""
        if self.config.every and (step % self.config.every == 0 or step == self.trainer.config.steps):
            self.draw(step)

    def draw(self, step: int) -> None:
        """Write the grid of `step`."""
        from biggan.evaluation.pictures.grids import class_images, draw_grid

        config, state = self.trainer.config, self.trainer.state
        names = self.trainer.source.classes[: self.config.classes]
        settings: dict[str, Any] = {
            "distribution": config.latents,
            "step": step,
            "passes": self.config.standing_passes,
            "seed": config.seed,
        }
        panels = {
            caption: class_images(network, range(len(names)), self.config.per_class, refresh_sigma=average, **settings)
            for caption, network, average in (
                ("generator", state.G, False),
                ("its average (EMA)", state.ema.network, True),
            )
        }
        folder = self.trainer.run.samples
        folder.mkdir(exist_ok=True)
        draw_grid(panels, names, f"step {step}").save(folder / f"step-{step:08d}.png")


class TensorBoard(Observer):
    """Scalars, thinned, and sample grids for TensorBoard. Stands behind `SampleGrids`, whose pictures it shows."""

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
        """Write what is still held back."""
        if self.writer is not None:
            self.writer.close()
