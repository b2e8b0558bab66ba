"""The generator of BigGAN, BigGAN-deep, and the SA-GAN and SN-GAN baselines."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from biggan.config import ModelConfig, SpeedConfig
from biggan.networks.architectures import BASE_RESOLUTION, resolutions, resolve_model
from biggan.networks.autocast import widened
from biggan.networks.base import GeneratorNetwork
from biggan.networks.blocks import DeepGBlock, GBlock, NonLocalBlock
from biggan.networks.factory import LayerFactory
from biggan.networks.recompute import run_block
from biggan.networks.sigma_control import clamp_layers


class Generator(GeneratorNetwork):
    """G(z, y): latents and class labels to images in [-1, 1] (Appendix B).

    With `skip_z`, BigGAN splits z into equal chunks: the first feeds the linear layer, each other one joins the
    class embedding as the condition of one block; BigGAN-deep joins the whole z to the embedding for the linear
    layer and for every block. Without a shared embedding each BatchNorm is conditioned by its own tables.
    """

    def __init__(self, model: ModelConfig, speed: SpeedConfig | None = None) -> None:
        super().__init__()
        plan = resolve_model(model)
        blocks = plan.blocks("G")
        ch, self.z_dim, self.skip_z = model.width_G, plan.z_dim, model.skip_z
        self.resolution, self.classes = model.resolution, model.classes
        self.deep = model.family == "biggan-deep"
        speed = speed or SpeedConfig()
        self.batched_power_iteration = speed.batched_power_iteration
        make = LayerFactory.for_G(model, speed)
        self.embedding = nn.Embedding(model.classes, plan.embedding_dim) if model.shared_embedding else None
        # Which condition each block takes: its own, or that of the block it was added to.
        self.condition_of = [sum(not other.extra for other in blocks[: i + 1]) - 1 for i in range(len(blocks))]
        self.chunk = self.z_dim // (self.condition_of[-1] + 2)
        linear_in, condition = self._input_widths(model, plan.embedding_dim)
        self.bottom = (plan.architecture.linear * ch, BASE_RESOLUTION, BASE_RESOLUTION)
        self.linear = make.linear(linear_in, self.bottom[0] * BASE_RESOLUTION**2)

        def norm(width: int) -> nn.Module:
            return make.conditional_batchnorm(width, condition, table=not model.shared_embedding)

        self.blocks = nn.ModuleList()
        attention = set(plan.attention_G)
        for block, resolution in zip(blocks, resolutions(blocks, BASE_RESOLUTION), strict=True):
            kind = DeepGBlock if self.deep else GBlock
            self.blocks.append(kind(make, norm, block.kind, block.before * ch, block.after * ch))
            if resolution in attention:  # after the first block at that resolution
                attention.remove(resolution)
                self.blocks.append(NonLocalBlock(make, block.after * ch))
        self.norm = make.batchnorm(blocks[-1].after * ch, model.batchnorm_eps_last)
        self.to_rgb = make.conv(blocks[-1].after * ch, 3, normalized=model.spectral_norm_rgb)
        clamp_layers(self, model.clamp_G, "model.clamp_G")

    def _input_widths(self, model: ModelConfig, embedding_dim: int) -> tuple[int, int]:
        """Width of the linear layer's input, and of a block's condition (or the number of classes, for tables)."""
        if self.deep:
            return self.z_dim + embedding_dim, self.z_dim + embedding_dim
        if self.skip_z:
            return self.chunk, self.chunk + embedding_dim
        return self.z_dim, embedding_dim if model.shared_embedding else model.classes

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Latents (N, z_dim) and labels (N,) int64 -> images (N, 3, R, R) in [-1, 1]."""
        return self.synthesize(z, y if self.embedding is None else self.embedding(y))

    def synthesize(self, z: Tensor, c: Tensor) -> Tensor:
        """Latents (N, z_dim) and class embeddings (N, embedding_dim) -> images; labels where there is no embedding."""
        first, conditions = self._conditions(z, c)
        h = self.linear(first).unflatten(1, self.bottom)
        for block in self.blocks:
            inputs = [h] if isinstance(block, NonLocalBlock) else [h, next(conditions)]
            h = run_block(block, *inputs, recompute=self.recompute)
        return torch.tanh(widened(self.to_rgb(torch.relu(self.norm(h)))))

    def _conditions(self, z: Tensor, c: Tensor) -> tuple[Tensor, Iterator[Tensor]]:
        """The linear layer's input, and the condition of each block in order."""
        if self.deep:
            whole = torch.cat([z, c], dim=1)
            return whole, iter([whole] * len(self.condition_of))
        if self.skip_z:
            first, *chunks = z.split(self.chunk, dim=1)
            joined = [torch.cat([chunk, c], dim=1) for chunk in chunks]
            return first, iter([joined[index] for index in self.condition_of])
        return z, iter([c] * len(self.condition_of))
