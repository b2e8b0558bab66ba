"""The configuration of the two networks: those of the paper (Appendix B), and the variants that the paper tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from biggan.config.fields import RangeError, Section, drop_network, setting


@dataclass(frozen=True)
class ClampConfig(Section):
    """Clamping of sigma_0 of one network's raw weights: W - max(0, s0 - c) u0 v0^T (Section 4.1, eq. 4)."""

    value: float | None = setting(None, low=0.0)
    """The number c that sigma_0 is clamped to; null: see `ratio`. If both are null, nothing is clamped.

    Eq. 4 changes one direction only: if c is below sigma_1, the largest singular value becomes sigma_1.
    """
    ratio: float | None = setting(None, low=1.0)
    """Clamp sigma_0 to this ratio r >= 1 of sigma_1 instead, without gradient through sigma_1: c = r * sg(s1)."""
    mode: Literal["forward", "project"] = setting("forward")
    """forward: in the forward pass, before Spectral Normalization, with gradient; project: after each update."""
    layers: list[str] | None = setting(None)
    """Names of the clamped layers, such as `G.linear` or `linear`; null: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.value is not None and self.ratio is not None:
            raise RangeError(f"value is {self.value} and ratio is {self.ratio}, expected one of them. Set one to null.")
        if not self.on and self.layers is not None:
            raise RangeError("layers is given without value or ratio. Give one of them.")

    @property
    def on(self) -> bool:
        """Whether anything is clamped."""
        return self.value is not None or self.ratio is not None


@dataclass(frozen=True)
class ModelConfig(Section):
    """The two networks (Appendix B)."""

    family: str = setting("biggan")
    """The network family by name: biggan (Tables 4-6), biggan-deep (Tables 7-9), or your own."""
    resolution: int = setting(16, low=8)
    """Height and width of the images, in pixels: 8 (BigGAN), 16 (BigGAN), 32, 64, 128, 256 or 512."""
    classes: int = setting(10, low=1)
    """Number of classes; must agree with the data."""
    ch: int = setting(16, low=1)
    """Channel multiplier of both networks (Table 1: 64 or 96; BigGAN-deep: 128)."""
    ch_G: int | None = setting(None, low=1)
    """Channel multiplier of G; null: ch."""
    ch_D: int | None = setting(None, low=1)
    """Channel multiplier of D; null: ch."""
    z_dim: int | None = setting(None, low=1)
    """Dimension of the latent z; null: that of the resolution (120 at 128 pixels)."""
    shared_embedding: bool = setting(True)
    """One class embedding, projected to every BatchNorm of G (Section 3); false: each BatchNorm has its own tables."""
    embedding_dim: int | None = setting(None, low=1)
    """Dimension of the shared class embedding; null: that of the resolution (128 from 32 pixels on)."""
    skip_z: bool = setting(True)
    """Feed z to every block of G (Section 3), not only to the first layer."""
    attention_G: list[int] | None = setting(None, low=4)
    """Resolutions of G's non-local blocks; null: those of the resolution; []: none."""
    attention_D: list[int] | None = setting(None, low=4)
    """Resolutions of D's non-local blocks; null: those of the resolution; []: none."""
    attention_blocks_D: list[int] | None = setting(None, low=0)
    """Numbers of D's blocks, from 0, that a non-local block follows, instead of `attention_D`; null: by resolution."""
    spectral_norm_G: bool = setting(True)
    """Spectral Normalization in G."""
    spectral_norm_D: bool = setting(True)
    """Spectral Normalization in D."""
    spectral_norm_rgb: bool = setting(True)
    """Spectral Normalization of G's last convolution too, if G has it."""
    conv1_width_D: Literal["out", "in"] = setting("out")
    """Width of the first convolution in D's BigGAN blocks: the block's output width (SA-GAN) or input width
    (SN-GAN)."""
    init: Literal["orthogonal", "normal", "xavier"] = setting("orthogonal")
    """Initialisation of weights: orthogonal, N(0, 0.02) or Xavier uniform (Section 3)."""
    batchnorm_eps: float = setting(1e-4, low=0.0)
    """BatchNorm's epsilon (Appendix C)."""
    batchnorm_eps_last: float | None = setting(None, low=0.0)
    """Epsilon of G's last BatchNorm, before the image; null: `batchnorm_eps`."""
    batchnorm_momentum: float = setting(0.1, low=0.0, high=1.0)
    """Weight of the newest batch in BatchNorm's running statistics (training itself does not use them)."""
    spectral_norm_eps: float = setting(1e-4, low=0.0)
    """Spectral Normalization's epsilon: the smallest norm that a vector is divided by (Appendix C)."""
    norm_G: Literal["batch", "weight", "none"] = setting("batch")
    """G's normalization: BatchNorm, WeightNorm instead, or none (Appendix H); gains and biases per class stay.

    With WeightNorm, clamping in mode `forward` acts on the normalized weight, since the raw weight has no scale.
    """
    norm_D: Literal["none", "batch", "conditional"] = setting("none")
    """BatchNorm before every ReLU of D (Appendix H): none, plain, or with a gain and bias per class."""
    share_embedding_with_D: bool = setting(False)
    """D's class embedding is a projection of G's, which only G trains (Appendix H)."""
    kernel_size_G: Literal[3, 5, 7] = setting(3)
    """Size of G's convolution filters, except 1x1 ones (Appendix H)."""
    kernel_size_D: Literal[3, 5, 7] = setting(3)
    """Size of D's convolution filters, except 1x1 ones (Appendix H)."""
    dilation_G: int = setting(1, low=1)
    """Dilation of G's convolution filters, in pixels; 1: none (Appendix H)."""
    dilation_D: int = setting(1, low=1)
    """Dilation of D's convolution filters, in pixels; 1: none (Appendix H)."""
    upsampling: Literal["nearest", "bilinear"] = setting("nearest")
    """How G doubles the resolution (Appendix C: nearest; Appendix H: bilinear)."""
    double_depth: bool = setting(False)
    """Add a residual block after every up and down block of both networks (Appendix H)."""
    projection: Literal["linear", "mlp"] = setting("linear")
    """Projection from a block's condition to its BatchNorm's gains and biases: linear, or an MLP with one hidden layer
    (Appendix H)."""
    projection_hidden: int | None = setting(None, low=1)
    """Width of the hidden layer of the MLP projections; null: the width of the condition."""
    projection_bias: bool = setting(False)
    """Whether the projections, linear or MLP, have a bias at their output (Appendix H)."""
    projection_spectral_norm: bool = setting(True)
    """Use Spectral Normalization in the projections too, if G has it (Appendix H)."""
    clamp_G: ClampConfig = setting(ClampConfig)
    """Clamping of G's sigma_0."""
    clamp_D: ClampConfig = setting(ClampConfig)
    """Clamping of D's sigma_0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        drop_network(self.clamp_G, "G")
        drop_network(self.clamp_D, "D")

    @property
    def width_G(self) -> int:
        """G's channel multiplier."""
        return self.ch if self.ch_G is None else self.ch_G

    @property
    def width_D(self) -> int:
        """D's channel multiplier."""
        return self.ch if self.ch_D is None else self.ch_D
