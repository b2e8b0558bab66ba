"""A discriminator in the manner of DCGAN: plain strided convolutions, no classes, no Spectral Normalization."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from biggan.config import ModelConfig, SpeedConfig
from biggan.networks.base import DiscriminatorNetwork


class DCGANDiscriminator(DiscriminatorNetwork):
    """D(x): a strided convolution for each halving down to 4x4, and a linear layer."""

    def __init__(self, model: ModelConfig, speed: SpeedConfig) -> None:
        super().__init__()
        before, after, layers = 3, model.width_D, list[nn.Module]()
        for _ in range((model.resolution // 4).bit_length() - 1):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            before, after = after, 2 * after
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.width = before * 16
        self.last = nn.Linear(self.width, 1)

    def parts(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The logits, and zeros for the classes that it does not see."""
        h = self.body(x).float()
        logits = self.last(h if mask is None else h * mask).squeeze(1)
        return logits, torch.zeros_like(logits)
