"""Generates many images, each a function of only the seed and its own number.

Latents are drawn in blocks of 64, and every block goes through G in one piece, so that any split of the work (over
ranks, over sessions) gives the same images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from biggan import rng
from biggan.config import LatentConfig
from biggan.networks.base import GeneratorNetwork
from biggan.networks.spectral_norm import normalized
from biggan.objective.latents import TruncationKind, sample_latents, truncated_latents

BLOCK = 64


@dataclass(frozen=True)
class LatentSpec:
    """Which latents: image i has latent number i of `seed`, and class i modulo the number of classes."""

    distribution: LatentConfig | str
    seed: int = 0
    step: int | None = None
    """The step for a distribution that changes during training; None: its final form."""
    truncation: float | None = None
    truncation_kind: TruncationKind = "threshold"

    def latents(self, random: np.random.Generator, count: int, dim: int) -> Tensor:
        """Latents (count, dim) of this law from a generator of random numbers."""
        if self.truncation is None:
            return sample_latents(self.distribution, random, count, dim, self.step)
        kind = self.truncation_kind
        return truncated_latents(self.distribution, random, count, dim, self.truncation, self.step, kind)

    def law(self) -> str:
        """In words."""
        if self.truncation is None:
            return "z as in training"
        if self.truncation_kind == "scaled":
            return f"z {self.truncation:g} times a normal cut at 2"
        return f"z truncated at {self.truncation:g}"

    def block(self, index: int, z_dim: int, classes: int) -> tuple[Tensor, Tensor]:
        """Latents (64, z_dim) and labels (64,) of images 64 * index and on."""
        random = rng.generator(self.seed, "images", index)
        return self.latents(random, BLOCK, z_dim), (torch.arange(BLOCK) + index * BLOCK) % classes


def block_count(count: int) -> int:
    """How many blocks hold `count` images."""
    return -(-count // BLOCK)


@torch.no_grad()
def generate(
    network: GeneratorNetwork, draw: LatentSpec, count: int, blocks: Iterable[int] | None = None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(number of the first, images, labels) of each of the `blocks` of images 0 to count - 1, or of all of them.

    `network` is in eval mode, under standing statistics. The images (64 or fewer, 3, R, R) lie in [-1, 1] on G's
    device, rounded to the 256 levels that a file would hold.
    """
    device = next(network.parameters()).device
    with normalized(network, iterate=False):
        for index in range(block_count(count)) if blocks is None else blocks:
            z, y = draw.block(index, network.z_dim, network.classes)
            wanted = min(BLOCK, count - index * BLOCK)
            images = network(z.to(device), y.to(device))[:wanted]
            yield index * BLOCK, images.clamp(-1, 1).add_(1).mul_(127.5).round_().div_(127.5).sub_(1), y[:wanted]
