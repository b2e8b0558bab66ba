"""The building blocks of both families (Appendix B, Figures 15 and 16): residual blocks and the non-local block."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.networks.batchnorm import NoNorm
from biggan.networks.factory import LayerFactory, NormFactory


class GBlock(nn.Module):
    """BigGAN's block in G: BN-ReLU-up-3x3-BN-ReLU-3x3, and a 1x1 skip (Figure 15b).

    `norm` makes a conditional BatchNorm, or its replacement. An up block always has a skip convolution; a flat one only
    where its widths differ.
    """

    def __init__(self, make: LayerFactory, norm: NormFactory, kind: str, before: int, after: int) -> None:
        super().__init__()
        self.resample = make.resampling(kind)
        self.norm1 = norm(before)
        self.conv1 = make.conv(before, after)
        self.norm2 = norm(after)
        self.conv2 = make.conv(after, after)
        self.skip = make.conv(before, after, 1) if kind != "flat" or before != after else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H', W')."""
        h = self.resample.then(self.conv1, F.relu(self.norm1(x, condition)))
        h = self.conv2(F.relu(self.norm2(h, condition)))
        return h + (self.resample(x) if self.skip is None else self.resample.skip_then(self.skip, x))


class DeepGBlock(nn.Module):
    """BigGAN-deep's block in G (Figure 16b): a bottleneck of before/4; the skip keeps the first channels."""

    def __init__(self, make: LayerFactory, norm: NormFactory, kind: str, before: int, after: int) -> None:
        super().__init__()
        self.resample, self.after = make.resampling(kind), after
        hidden = before // 4
        self.norm1, self.conv1 = norm(before), make.conv(before, hidden, 1)
        self.norm2, self.conv2 = norm(hidden), make.conv(hidden, hidden)
        self.norm3, self.conv3 = norm(hidden), make.conv(hidden, hidden)
        self.norm4, self.conv4 = norm(hidden), make.conv(hidden, after, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H', W')."""
        h = self.conv1(F.relu(self.norm1(x, condition)))
        h = self.resample.then(self.conv2, F.relu(self.norm2(h, condition)))
        h = self.conv3(F.relu(self.norm3(h, condition)))
        h = self.conv4(F.relu(self.norm4(h, condition)))
        return h + self.resample(x[:, : self.after])


class DBlock(nn.Module):
    """BigGAN's block in D: ReLU-3x3-ReLU-3x3-pool, and a 1x1 skip (Figure 15c).

    The network's first block has no leading ReLU and pools before its 1x1; the others convolve, then pool.
    `hidden` is the number of filters of the first convolution; `norm` makes the normalization before a ReLU.
    """

    def __init__(
        self, make: LayerFactory, norm: NormFactory, kind: str, before: int, after: int, *, hidden: int, first: bool
    ) -> None:
        super().__init__()
        self.resample, self.first = make.resampling(kind), first
        self.norm1 = NoNorm() if first else norm(before)
        self.conv1 = make.conv(before, hidden)
        self.norm2 = norm(hidden)
        self.conv2 = make.conv(hidden, after)
        self.skip = make.conv(before, after, 1) if kind != "flat" or before != after else None

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(N, before, H, W) and labels (N,) -> (N, after, H', W')."""
        h = self.conv1(x if self.first else F.relu(self.norm1(x, y)))
        h = self.resample.after(self.conv2, F.relu(self.norm2(h, y)))
        if self.skip is None:
            return h + self.resample(x)
        return h + (self.skip(self.resample(x)) if self.first else self.resample.skip_after(self.skip, x))


class DeepDBlock(nn.Module):
    """BigGAN-deep's block in D (Figure 16c): a bottleneck of after/4; the skip is pooled, then gains channels."""

    def __init__(self, make: LayerFactory, norm: NormFactory, kind: str, before: int, after: int) -> None:
        super().__init__()
        self.resample = make.resampling(kind)
        hidden = after // 4
        self.norm1, self.conv1 = norm(before), make.conv(before, hidden, 1)
        self.norm2, self.conv2 = norm(hidden), make.conv(hidden, hidden)
        self.norm3, self.conv3 = norm(hidden), make.conv(hidden, hidden)
        self.norm4, self.conv4 = norm(hidden), make.conv(hidden, after, 1)
        self.skip = make.conv(before, after - before, 1) if after > before else None

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(N, before, H, W) and labels (N,) -> (N, after, H', W')."""
        h = self.conv1(F.relu(self.norm1(x, y)))
        h = self.conv2(F.relu(self.norm2(h, y)))
        h = self.conv3(F.relu(self.norm3(h, y)))
        h = self.conv4(self.resample(F.relu(self.norm4(h, y))))
        skip = self.resample(x)
        return h + (skip if self.skip is None else torch.cat([skip, self.skip(skip)], dim=1))


class NonLocalBlock(nn.Module):
    """Self-attention over positions (Zhang et al., 2018): x + gain * o(softmax(theta^T phi) g), the gain from 0.

    theta and phi have an eighth of the channels, g a half; phi and g are max-pooled by two.
    """

    def __init__(self, make: LayerFactory, width: int) -> None:
        super().__init__()
        self.theta = make.conv(width, width // 8, 1, bias=False)
        self.phi = make.conv(width, width // 8, 1, bias=False)
        self.g = make.conv(width, width // 2, 1, bias=False)
        self.o = make.conv(width // 2, width, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        theta = self.theta(x).flatten(2)  # N, C/8, HW
        phi = F.max_pool2d(self.phi(x), 2).flatten(2)  # N, C/8, HW/4
        g = F.max_pool2d(self.g(x), 2).flatten(2)  # N, C/2, HW/4
        attention = torch.softmax(theta.transpose(1, 2) @ phi, dim=-1)  # N, HW, HW/4
        out = (g @ attention.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.gain * self.o(out)


class ProjectedEmbedding(nn.Module):
    """D's class embedding as a projection of G's (Appendix H).

    `classes` (classes x dim) is a copy of G's embedding, taken at each of D's updates. It is a constant to D and in G's
    update, so that G cannot lower its loss by moving D's classes. Only G trains the embedding; D trains the projection.
    """

    classes: Tensor

    def __init__(self, make: LayerFactory, classes: int, dim: int, width: int) -> None:
        super().__init__()
        self.register_buffer("classes", torch.zeros(classes, dim))
        self.projection = make.linear(dim, width, bias=False)

    def forward(self, y: Tensor) -> Tensor:
        """(N,) -> (N, width)."""
        return self.projection(F.embedding(y, self.classes))
