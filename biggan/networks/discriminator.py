"""The projection discriminator of BigGAN, BigGAN-deep, and the SA-GAN and SN-GAN baselines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from biggan.config import ModelConfig, SpeedConfig
from biggan.networks.architectures import Block, resolve_model
from biggan.networks.autocast import in_full_precision, widened
from biggan.networks.base import DiscriminatorNetwork, GeneratorNetwork, shared_embedding
from biggan.networks.blocks import DBlock, DeepDBlock, NonLocalBlock, ProjectedEmbedding
from biggan.networks.factory import LayerFactory, NormFactory
from biggan.networks.recompute import run_block
from biggan.networks.sigma_control import clamp_layers


class Discriminator(DiscriminatorNetwork):
    """D(x, y): images and class labels to one logit an image, Embed(y) . h + linear(h) (Appendix B).

    h is the ReLU of the last block's map, summed over positions.
    """

    def __init__(self, model: ModelConfig, speed: SpeedConfig | None = None) -> None:
        super().__init__()
        plan = resolve_model(model)
        blocks = plan.blocks("D")
        ch = model.width_D
        speed = speed or SpeedConfig()
        self.batched_power_iteration = speed.batched_power_iteration
        make = LayerFactory.for_D(model, speed)

        def norm(width: int) -> nn.Module:
            return make.norm_in_D(width, model.classes)

        attention = plan.attention_places_D(model.resolution)
        self.blocks = nn.ModuleList()
        for index, block in enumerate(blocks):
            self.blocks.append(_make_block(make, norm, model, block, ch, first=index == 0))
            if index in attention:
                self.blocks.append(NonLocalBlock(make, block.after * ch))
        width = blocks[-1].after * ch
        self.width = width
        self.norm = norm(width)
        self.linear = make.linear(width, 1)
        if model.share_embedding_with_D:
            self.embedding: nn.Module = ProjectedEmbedding(make, model.classes, plan.embedding_dim, width)
        else:
            self.embedding = make.embedding(model.classes, width)
        clamp_layers(self, model.clamp_D, "model.clamp_D")

    @torch.no_grad()
    def copy_from(self, G: GeneratorNetwork) -> None:
        """Copy G's class embedding as it is now, where D's is a projection of it; else do nothing."""
        if isinstance(self.embedding, ProjectedEmbedding):
            self.embedding.classes.copy_(shared_embedding(G).weight)

    def features(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (N, 3, R, R) in [-1, 1] -> h (N, width). Class-conditional BatchNorm needs their labels y (N,)."""
        for block in self.blocks:
            inputs = [x, y] if isinstance(block, (DBlock, DeepDBlock)) else [x]
            x = run_block(block, *inputs, recompute=self.recompute)
        return widened(torch.relu(self.norm(x, y))).sum(dim=(2, 3))

    def parts(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The linear and the projection part of the logits, each (N,). `mask` (N, width), dropout's, multiplies h."""
        h = self.features(x, y)
        with in_full_precision(h):
            if mask is not None:
                h = h * mask
            return self.linear(h).squeeze(1), (self.embedding(y) * h).sum(dim=1)


def _make_block(
    make: LayerFactory, norm: NormFactory, model: ModelConfig, block: Block, ch: int, *, first: bool
) -> nn.Module:
    before, after = block.before * ch or 3, block.after * ch
    if block.kind == "conv":
        return make.conv(before, after)
    if model.family == "biggan-deep":
        return DeepDBlock(make, norm, block.kind, before, after)
    # SN-GAN's first block has its output's width too: three hidden filters would throw the image away.
    hidden = after if model.conv1_width_D == "out" or first else before
    return DBlock(make, norm, block.kind, before, after, hidden=hidden, first=first)
