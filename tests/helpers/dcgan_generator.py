"""A generator in the manner of DCGAN (Radford et al., 2016): plain transposed convolutions, no classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from biggan.config import ModelConfig, SpeedConfig
from biggan.networks.base import GeneratorNetwork
from biggan.networks.batchnorm import AffineBatchNorm


class DCGANGenerator(GeneratorNetwork):
    """G(z): a linear layer to a 4x4 map, and a transposed convolution for each doubling."""

    def __init__(self, model: ModelConfig, speed: SpeedConfig) -> None:
        super().__init__()
        self.z_dim, self.resolution, self.classes = model.z_dim or 24, model.resolution, model.classes
        width, layers = 4 * model.width_G, list[nn.Module]()
        self.linear = nn.Linear(self.z_dim, width * 16)
        for _ in range((model.resolution // 4).bit_length() - 1):
            norm = AffineBatchNorm(width, eps=model.batchnorm_eps, momentum=model.batchnorm_momentum)
            layers += [norm, nn.ReLU(), nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1)]
            width //= 2
        self.body = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Images in [-1, 1], whatever the classes."""
        return torch.tanh(self.body(self.linear(z).unflatten(1, (-1, 4, 4))).float())
