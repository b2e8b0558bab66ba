"""The projection discriminator of BigGAN, BigGAN-deep, and the SA-GAN and SN-GAN baselines."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from biggan.architectures import Block, resolutions, resolve
from biggan.config import ModelConfig
from biggan.layers import DBlock, DeepDBlock, LayerMaker, NonLocalBlock


class Discriminator(nn.Module):
    """D(x, y): images and class labels to one logit an image, Embed(y) . h + linear(h) (Appendix B).

    h is the ReLU of the last block's map, summed over positions.
    """

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        plan = resolve(model)
        blocks = plan.architecture.blocks("D")
        ch = model.width_D
        make = LayerMaker(spectral_norm=model.spectral_norm_D, sn_eps=model.spectral_norm_eps)
        places = resolutions(blocks, model.resolution)
        self.blocks = nn.ModuleList()
        for index, (block, resolution) in enumerate(zip(blocks, places, strict=True)):
            self.blocks.append(_make_block(make, model, block, ch, first=index == 0))
            # after the last block at that resolution
            if resolution in plan.attention_D and resolution not in places[index + 1 :]:
                self.blocks.append(NonLocalBlock(make, block.after * ch))
        width = blocks[-1].after * ch
        self.linear = make.linear(width, 1)
        self.embedding = make.embedding(model.classes, width)

    def features(self, x: Tensor) -> Tensor:
        """Images (N, 3, R, R) in [-1, 1] -> h (N, width)."""
        for block in self.blocks:
            x = block(x)
        return torch.relu(x).sum(dim=(2, 3))

    def parts(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The linear and the projection part of the logits, each (N,)."""
        h = self.features(x)
        return self.linear(h).squeeze(1), (self.embedding(y) * h).sum(dim=1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Images (N, 3, R, R) and labels (N,) int64 -> logits (N,); positive means real."""
        linear, projection = self.parts(x, y)
        return linear + projection


def _make_block(make: LayerMaker, model: ModelConfig, block: Block, ch: int, *, first: bool) -> nn.Module:
    before, after = block.before * ch or 3, block.after * ch
    if block.kind == "conv":
        return make.conv(before, after)
    if model.family == "biggan-deep":
        return DeepDBlock(make, block.kind, before, after)
    # SN-GAN's first block has its output's width too: three hidden filters would throw the image away.
    hidden = after if model.hidden_D == "out" or first else before
    return DBlock(make, block.kind, before, after, hidden=hidden, first=first)
