"""Measures how much D memorizes, on a schedule. `biggan.training.logits` has the statistics of every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from biggan import rng
from biggan.evaluation.memorization import discriminator_logits, fixed_images, input_gradient_norms, memorization
from biggan.networks.spectral_norm import normalized
from biggan.objective.latents import sample_latents
from biggan.training.observer import Observer

if TYPE_CHECKING:
    from biggan.training.trainer import Trainer


class DiscriminatorView(Observer):
    """Evaluates D, every `discriminator_view.every` steps, on fixed training, validation and generated images.

    `D/accuracy/train`, `/val` and `/fake` are the shares on which it is right (Section 4.2: a D that memorizes is right
    on nearly all training images and half of the validation images). They depend on D's offset, which drifts.
    Independent
    of it are `D/auc/train_val`, training against validation images (0.5: no memorization), `D/auc/real_fake` and
    `D/auc/val_fake`, training and validation against generated images, and `D/gap/train_val`, the difference of the
    mean logits in units of their spread (`biggan.evaluation.memorization`). `D/input_gradient/real` and `/fake` are the
    means of |grad_x D(x)|, what R1 would see. The generated images are of fixed latents, made by G as in training: with
    its own weights, normalized by the batch's statistics. Without validation images (`data.no_validation`) what needs
    them is missing.

    Args:
        record: called with the step and the numbers.
    """

    def __init__(self, record: Callable[[int, Mapping[str, float]], None]) -> None:
        self.record = record
        self.images: dict[str, tuple[Tensor, Tensor]] | None = None

    def on_start(self, trainer: Trainer) -> None:
        """The images are read when they are first needed."""
        self.trainer, self.config = trainer, trainer.config.discriminator_view

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """Measure at the scheduled steps."""
        if self.config.every and step % self.config.every == 0:
            self.record(step, self.ask())

    def ask(self) -> dict[str, float]:
        """The measurements now; G and D are not changed."""
        if self.images is None:
            self.images = self._fixed()
        D, images = self.trainer.state.D, {**self.images, "fake": self._generated()}
        logits = {name: discriminator_logits(D, *one) for name, one in images.items()}
        none = logits["train"][:0]
        measured = memorization(logits["train"], logits.get("val", none), logits["fake"])
        numbers = {f"D/{name}": value for name, value in measured.items() if "val" in logits or "val" not in name}
        for kind, name in (("real", "train"), ("fake", "fake")):
            numbers[f"D/input_gradient/{kind}"] = input_gradient_norms(D, *images[name]).mean().double()
        return dict(zip(numbers, torch.stack(list(numbers.values())).tolist(), strict=True))

    def _fixed(self) -> dict[str, tuple[Tensor, Tensor]]:
        source, seed = self.trainer.source, self.trainer.config.seed
        return {
            name: fixed_images(split, self.config.images, rng.generator(seed, f"view/{name}"))
            for name, split in (("train", source.train), ("val", source.val))
            if len(split)  # there may be no validation images
        }

    @torch.no_grad()
    def _generated(self) -> tuple[Tensor, Tensor]:
        config, G = self.trainer.config, self.trainer.state.G
        random = rng.generator(config.seed, "view/fake")
        z = sample_latents(config.latents, random, self.config.images, G.z_dim, self.trainer.state.step)
        y = torch.from_numpy(random.integers(0, config.model.classes, size=self.config.images))
        device = next(G.parameters()).device
        batch = config.train.batch
        with normalized(G, iterate=False):
            images = [G(a.to(device), b.to(device)) for a, b in zip(z.split(batch), y.split(batch), strict=True)]
        return torch.cat(images), y
