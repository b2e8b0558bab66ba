"""The layers of one network, all made in the same way."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from biggan.config import ModelConfig, SpeedConfig
from biggan.networks.batchnorm import Affine, AffineBatchNorm, ConditionalAffine, ConditionalBatchNorm, NoNorm
from biggan.networks.reparametrization import Conv2d, Linear, WeightNorm
from biggan.networks.resampling import Resampling
from biggan.networks.spectral_norm import SNConv2d, SNEmbedding, SNLinear

NormFactory = Callable[[int], nn.Module]
"""Width -> a normalization, called with the map and the block's condition (or D's labels)."""


class LayerFactory:
    """Makes the layers of one network: with Spectral Normalization or without, with filters of one size."""

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
        """The factory of G's layers."""
        return cls(
            spectral_norm=model.spectral_norm_G,
            sn_eps=model.spectral_norm_eps,
            bn_eps=model.batchnorm_eps,
            bn_momentum=model.batchnorm_momentum,
            norm=model.norm_G,
            size=model.kernel_size_G,
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
        """The factory of D's layers."""
        return cls(
            spectral_norm=model.spectral_norm_D,
            sn_eps=model.spectral_norm_eps,
            bn_eps=model.batchnorm_eps,
            bn_momentum=model.batchnorm_momentum,
            norm=model.norm_D,
            size=model.kernel_size_D,
            dilation=model.dilation_D,
            speed=speed,
        )

    def resampling(self, kind: str) -> Resampling:
        """A block's resampling: "up", "down" or "flat"."""
        return Resampling(kind, self.up, self.speed)

    def conv(
        self, before: int, after: int, size: int | None = None, *, bias: bool = True, normalized: bool = True
    ) -> nn.Module:
        """A convolution that keeps the resolution, with the network's filter size and dilation unless `size` is given.

        A 1x1 filter has nothing to dilate. Without `normalized` it has no Spectral Normalization.
        """
        size, dilation = (self.size, self.dilation) if size is None else (size, 1)
        kind = SNConv2d if self.spectral_norm and normalized else Conv2d
        layer = kind(before, after, size, padding=dilation * (size // 2), dilation=dilation, bias=bias)
        return self._weight_normalized(self._prepared(layer))

    def linear(self, before: int, after: int, *, bias: bool = True) -> nn.Module:
        """A linear layer."""
        layer = (SNLinear if self.spectral_norm else Linear)(before, after, bias=bias)
        return self._weight_normalized(self._prepared(layer))

    def embedding(self, classes: int, width: int) -> nn.Module:
        """D's class embedding (G's is never normalized, and is made elsewhere)."""
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

    def batchnorm(self, width: int, eps: float | None = None) -> nn.Module:
        """G's last normalization, with a gain and a bias a channel; with its own `eps` where that is given."""
        settings = self.bn_settings if eps is None else self.bn_settings | {"eps": eps}
        return AffineBatchNorm(width, **settings) if self.norm == "batch" else Affine(width)

    def conditional_batchnorm(self, width: int, condition: int, *, table: bool) -> nn.Module:
        """BatchNorm conditioned on a vector of dimension `condition`; with `table`, on one of `condition` classes.

        Where G has no BatchNorm, only the gain and bias: G learns the class from them alone.
        """
        make = nn.Embedding if table else self.projection
        gain, bias = make(condition, width), make(condition, width)
        if self.norm not in ("batch", "conditional"):
            return ConditionalAffine(gain, bias)
        return ConditionalBatchNorm(width, gain, bias, **self.bn_settings)

    def norm_in_D(self, width: int, classes: int) -> nn.Module:
        """The normalization before a ReLU of D: none, BatchNorm, or BatchNorm with a gain and bias per class."""
        if self.norm == "conditional":
            return self.conditional_batchnorm(width, classes, table=True)
        return NoNorm() if self.norm == "none" else self.batchnorm(width)
