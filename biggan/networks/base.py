"""The protocol of a network: what training, sampling, monitoring and evaluation ask of G and of D.

A new family is one class derived from `GeneratorNetwork`, one from `DiscriminatorNetwork`, each made with
(ModelConfig, SpeedConfig), and one line in `biggan.networks.FAMILIES`. What is named below is all that is required.

- Every forward is a function of its arguments, parameters and buffers: no dropout of its own, no random draws.
  Dropout in D comes as `mask`. A BatchNorm is one of `biggan.networks.batchnorm`, whose statistics move once an update.
- Weights are drawn after construction (`initialize`): those of two or more dimensions by `model.init`; biases become
  zero; other one-dimensional parameters keep what the constructor gave them.
- Names of parameters and buffers are the names in checkpoints and records.

Optional attributes, and what is not available without them:

- `blocks`, an nn.ModuleList whose members are called by `run_block(..., recompute=self.recompute)`: `train.recompute`.
- G's `embedding`, an nn.Embedding, with `synthesize(z, c)` from latents and embedded classes to images:
  `regularizers.embedding_decay`, `biggan-eval`'s interpolation between classes.
- D's `linear`, the last nn.Linear: the column D/bias of the record, else absent.
- Layers of `biggan.networks.spectral_norm` and `reparametrization`, made by a `LayerFactory`: Spectral Normalization,
  clamping in mode `forward`. Penalties on weights, projection and the monitor need no special layers.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from biggan.errors import UserError


class GeneratorNetwork(nn.Module):
    """G(z, y): latents and class labels to images."""

    z_dim: int
    """Dimension of the latents."""
    resolution: int
    """Height and width of the images, in pixels."""
    classes: int
    """Number of classes."""
    recompute = False
    """Whether `blocks` are computed again in the backward pass; the trainer sets it."""
    batched_power_iteration = False
    """Whether all weights are normalized together (`speed.batched_power_iteration`)."""

    @abstractmethod
    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Latents (N, z_dim) and labels (N,) int64 -> images (N, 3, R, R) in [-1, 1], float32."""


class DiscriminatorNetwork(nn.Module):
    """D(x, y): images and class labels to one logit per image; positive means real."""

    width: int
    """Number of features before the last layer, which dropout's masks multiply."""
    recompute = False
    """Whether `blocks` are computed again in the backward pass; the trainer sets it."""
    batched_power_iteration = False
    """Whether all weights are normalized together (`speed.batched_power_iteration`)."""

    @abstractmethod
    def parts(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The logits' unconditional and class-conditional part, each (N,) float32; zeros where there is no such part.

        Images (N, 3, R, R) in [-1, 1], labels (N,) int64, and a mask (N, width) that multiplies the features.
        """

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """The logits (N,), the sum of the `parts`."""
        unconditional, conditional = self.parts(x, y, mask)
        return unconditional + conditional

    def copy_from(self, G: GeneratorNetwork) -> None:
        """Copy what D holds of G as a constant, before each of D's updates; nothing by default."""


def shared_embedding(G: nn.Module) -> nn.Embedding:
    """G's shared class embedding. Raises `UserError` where it has none."""
    embedding = getattr(G, "embedding", None)
    if not isinstance(embedding, nn.Embedding):
        raise UserError("a setting is on that builds on G's shared class embedding, and this G has none.")
    return embedding
