"""The inputs of an update: latents, labels, images and masks, drawn for the global batch and split by rank.

Every draw is a function of (seed, purpose, step, k). It is made whole, on the CPU, so that an image's draws depend on
its place in the global batch and not on accumulation, ranks or the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from biggan import rng
from biggan.config import Config
from biggan.distributed.ranks import BatchShard
from biggan.objective.gradient_penalties import Batch, strengths
from biggan.objective.latents import sample_latents
from biggan.training.state import TrainingState


class BatchDraws:
    """This rank's draws for the current step of `state`; `share` selects its images of the batch."""

    def __init__(self, config: Config, state: TrainingState) -> None:
        self.config, self.state = config, state
        self.share = BatchShard(config.train.batch, config.train.accumulate)
        first = next(state.G.parameters())
        self.device, self.dtype = first.device, first.dtype
        self._mixes = bool(strengths(config).keys() - {"r1"})

    def latents(self, network: str, k: int) -> tuple[Tensor, Tensor]:
        """The latents (B, z_dim) and labels (B,) for G in update `k` of "G" or "D"."""
        config, batch = self.config, self.config.train.batch
        z = sample_latents(
            config.latents, self._random(f"{network}/latents", k), batch, self.state.G.z_dim, self.state.step
        )
        labels = torch.from_numpy(self._random(f"{network}/labels", k).integers(0, config.model.classes, size=batch))
        return self._moved(self.share.of(z), self.dtype), self._moved(self.share.of(labels))

    def discriminator_batch(self, k: int, fake: Tensor, fake_labels: Tensor, real: Tensor, labels: Tensor) -> Batch:
        """The inputs of D step `k`, with the draws of its penalties and dropout. `real` and `labels` come from the
        loader."""
        mix = None
        if self._mixes:
            drawn = self._random("D/interpolation", k).random(self.config.train.batch, dtype=np.float32)
            mix = self._moved(self.share.of(torch.from_numpy(drawn)), self.dtype)
        (mask_fake,), (mask_real,) = self.masks("D/fake", k), self.masks("D/real", k)
        layout = torch.channels_last if self.config.speed.channels_last else torch.contiguous_format
        real = self._moved(real, self.dtype).contiguous(memory_format=layout)
        return Batch(fake, fake_labels, real, self._moved(labels), mask_fake, mask_real, mix)

    def masks(self, purpose: str, k: int, count: int = 1) -> Sequence[Tensor | None]:
        """Dropout's masks (B, D's width) in `count` parts: 0, or 1 / keep, so that their mean is 1; None: off."""
        keep = self.config.regularizers.dropout_keep
        if keep == 1:
            return [None] * count
        shape = (self.config.train.batch, self.state.D.width)
        kept = self._random(f"{purpose}/dropout", k).random(shape, dtype=np.float32) < keep
        mask = self._moved(self.share.of(torch.from_numpy(kept)), self.dtype)
        return (mask / keep).chunk(count)

    def _random(self, purpose: str, k: int) -> np.random.Generator:
        return rng.generator(self.config.seed, purpose, self.state.step, k)

    def _moved(self, drawn: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """On the device; on a GPU from pinned memory, so that nothing waits for the copy."""
        if self.device.type == "cuda" and not drawn.is_cuda:
            drawn = drawn.pin_memory().to(self.device, non_blocking=True)
        return drawn.to(self.device, dtype or drawn.dtype)
