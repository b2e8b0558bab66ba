"""The building blocks of both families (Appendix B, Figures 15 and 16): residual blocks and the non-local block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.config.tree import ModelConfig, SpeedConfig
from biggan.networks.reparametrization import Conv2d, Linear, WeightNorm
from biggan.networks.resampling import Resampling
from biggan.networks.spectral_norm import (
    Affine,
    AffineBatchNorm,
    ConditionalAffine,
    ConditionalBatchNorm,
    NoNorm,
    SNConv2d,
    SNEmbedding,
    SNLinear,
)

NormFactory = Callable[[int], nn.Module]
"""Width -> a normalization, called with the map and the block's condition (or D's labels)."""


class LayerFactory:
    """Makes one network's layers, all in the same way: with Spectral Normalization or without, filters of one size."""

    def __init__(
        self,
        *,
        spectral_norm: bool,
        sn_eps: float,
        bn_eps: float = 1e-4,
        bn_momentum: float = 0.1,
        norm: str = "batch",
        size: int = 3,
        dilation: int = 1,
        up: str = "nearest",
        projection: str = "linear",
        projection_hidden: int | None = None,
        projection_bias: bool = False,
        projection_spectral_norm: bool = True,
        speed: SpeedConfig | None = None,
    ) -> None:
        self.spectral_norm, self.sn_eps, self.norm = spectral_norm, sn_eps, norm
        self.bn_settings = {"eps": bn_eps, "momentum": bn_momentum}
        self.size, self.dilation = size, dilation
        self.up, self.speed = up, speed or SpeedConfig()
        self.projection_kind, self.projection_hidden = projection, projection_hidden
        self.projection_bias, self.projection_spectral_norm = projection_bias, projection_spectral_norm

    @classmethod
    def for_G(cls, model: ModelConfig, speed: SpeedConfig) -> LayerFactory:
        """The maker of G's layers."""
        return cls(
            spectral_norm=model.spectral_norm_G,
            sn_eps=model.spectral_norm_eps,
            bn_eps=model.batchnorm_eps,
            bn_momentum=model.batchnorm_momentum,
            norm=model.norm_G,
            size=model.filter_G,
            dilation=model.dilation_G,
            up=model.upsampling,
            projection=model.projection,
            projection_hidden=model.projection_hidden,
            projection_bias=model.projection_bias,
            projection_spectral_norm=model.projection_spectral_norm,
            speed=speed,
        )

    @classmethod
    def for_D(cls, model: ModelConfig, speed: SpeedConfig) -> LayerFactory:
        """The maker of D's layers."""
        return cls(
            spectral_norm=model.spectral_norm_D,
            sn_eps=model.spectral_norm_eps,
            bn_eps=model.batchnorm_eps,
            bn_momentum=model.batchnorm_momentum,
            norm=model.norm_D,
            size=model.filter_D,
            dilation=model.dilation_D,
            speed=speed,
        )

    def resampling(self, kind: str) -> Resampling:
        """A block's resampling: "up", "down" or "flat"."""
        return Resampling(kind, self.up, self.speed)

    def conv(self, before: int, after: int, size: int | None = None, *, bias: bool = True) -> nn.Module:
        """A convolution that keeps the resolution, with the network's filter size and dilation unless `size` is given.

        A 1x1 filter has nothing to dilate.
        """
        size, dilation = (self.size, self.dilation) if size is None else (size, 1)
        kind = SNConv2d if self.spectral_norm else Conv2d
        layer = kind(before, after, size, padding=dilation * (size // 2), dilation=dilation, bias=bias)
        return self._weight_normalized(self._prepared(layer))

    def linear(self, before: int, after: int, *, bias: bool = True) -> nn.Module:
        """A linear layer."""
        layer = (SNLinear if self.spectral_norm else Linear)(before, after, bias=bias)
        return self._weight_normalized(self._prepared(layer))

    def embedding(self, classes: int, width: int) -> nn.Module:
        """A class embedding (D's is normalized, G's is not and does not come from here)."""
        return self._prepared((SNEmbedding if self.spectral_norm else nn.Embedding)(classes, width))

    def _prepared(self, layer: nn.Module) -> nn.Module:
        if isinstance(layer, (SNConv2d, SNLinear, SNEmbedding)):
            layer.prepare_spectral_norm(self.sn_eps)
        return layer

    def _weight_normalized(self, layer: nn.Module) -> nn.Module:
        if self.norm == "weight":
            layer.add_map("weight_norm", WeightNorm(len(layer.weight)))  # type: ignore[operator, arg-type]
        return layer

    def projection(self, before: int, after: int) -> nn.Module:
        """From a condition (N, before) to the gains or biases (N, after) of one BatchNorm: linear, or an MLP."""
        kind = SNLinear if self.spectral_norm and self.projection_spectral_norm else Linear
        hidden = [] if self.projection_kind == "linear" else [self.projection_hidden or before]
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [self._prepared(kind(before, width)), nn.ReLU()]
            before = width
        layers.append(self._prepared(kind(before, after, bias=self.projection_bias)))
        return nn.Sequential(*layers) if hidden else layers[0]

    def batchnorm(self, width: int) -> nn.Module:
        """G's last normalization, with a gain and a bias a channel."""
        return AffineBatchNorm(width, **self.bn_settings) if self.norm == "batch" else Affine(width)

    def conditional_batchnorm(self, width: int, condition: int, *, table: bool) -> nn.Module:
        """BatchNorm conditioned on a vector of dimension `condition`; with `table`, on one of `condition` classes.

        Where G has no BatchNorm, the gain and bias alone: they are all that tells G the class.
        """
        if table:
            gain, bias = nn.Embedding(condition, width), nn.Embedding(condition, width)
        else:
            gain, bias = (self.projection(condition, width) for _ in range(2))
        if self.norm not in ("batch", "conditional"):
            return ConditionalAffine(gain, bias)
        return ConditionalBatchNorm(width, gain, bias, **self.bn_settings)

    def norm_in_D(self, width: int, classes: int) -> nn.Module:
        """What stands before a ReLU of D: nothing, BatchNorm, or BatchNorm with a gain and bias a class."""
        if self.norm == "conditional":
            return self.conditional_batchnorm(width, classes, table=True)
        return NoNorm() if self.norm == "none" else self.batchnorm(width)


class GBlock(nn.Module):
    """BigGAN's block in G: BN-ReLU-up-3x3-BN-ReLU-3x3, and a 1x1 skip (Figure 15b).

    `norm` makes a conditional BatchNorm, or what stands for it. An up block has its skip convolution also where widths
    agree; a flat one has none there.
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
    `hidden` is the number of filters of the first convolution; `norm` makes what stands before a ReLU.
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

    `classes` (classes x dim) is a copy of G's embedding, taken at each of D's updates: a constant to D, and to G's
    update too, so that G cannot lower its loss by moving D's classes. G alone trains the embedding, through G; D trains
    the projection.
    """

    classes: Tensor

    def __init__(self, make: LayerFactory, classes: int, dim: int, width: int) -> None:
        super().__init__()
        self.register_buffer("classes", torch.zeros(classes, dim))
        self.projection = make.linear(dim, width, bias=False)

    def forward(self, y: Tensor) -> Tensor:
        """(N,) -> (N, width)."""
        return self.projection(F.embedding(y, self.classes))
