"""Sample grids of fixed latents during training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from biggan.evaluation.pictures.grids import class_images, draw_grid
from biggan.run.checkpoint import step_of
from biggan.training.observer import Observer
from spectra.record.files import remove_partial, replacing

if TYPE_CHECKING:
    from biggan.training.trainer import Trainer


class SampleGrids(Observer):
    """Draws grids of fixed latents, one row per class, of G and of its average, into samples/step-*.png."""

    def on_start(self, trainer: Trainer) -> None:
        """Remove grids of steps that will be repeated, and one that a kill left half-written; before the first step,
        draw the untrained networks."""
        self.trainer, self.config = trainer, trainer.config.samples
        remove_partial(trainer.run.samples)
        for path in trainer.run.samples.glob("step-*.png"):
            if step_of(path) > trainer.state.step:
                path.unlink()
        if trainer.state.step == 0 and 0 in self.config.early and self.config.every:
            self.draw(0)

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """Draw every `samples.every` steps, at those of `samples.early`, and at the end."""
        every = self.config.every
        if every and (step % every == 0 or step in self.config.early or step == self.trainer.config.steps):
            self.draw(step)

    def draw(self, step: int) -> None:
        """Write the grid of `step`."""
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
                ("its average (EMA), which lags behind", state.ema.network, True),
            )
        }
        folder = self.trainer.run.samples
        folder.mkdir(exist_ok=True)
        with replacing(folder / f"step-{step:08d}.png") as temporary:
            draw_grid(panels, names, f"step {step}").save(temporary, format="PNG")
