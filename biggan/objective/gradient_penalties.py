"""Penalties on the gradient of D with respect to images. A new one is one function, and one line in
`GRADIENT_PENALTIES` (registries.py).

Each makes a pass of its own through D, with the normalized weights and the dropout masks of the update. A mean over
images: under accumulation the means of the micro-batches average to that of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from biggan.config import Config
from biggan.errors import check_known
from biggan.networks.batchnorm import not_collecting
from biggan.objective.losses import make_loss
from biggan.objective.registries import GRADIENT_PENALTIES


@dataclass(frozen=True)
class Batch:
    """What one update of D sees: as many images of G's as real ones, (B, 3, R, R), and their labels (B,).

    `mask_fake`, `mask_real` (B, width): dropout's masks; None without dropout. `mix` (B,): the share of the real image
    in each point between a real image and one of G's; None without a penalty that may need it.
    """

    fake: Tensor
    fake_labels: Tensor
    real: Tensor
    labels: Tensor
    mask_fake: Tensor | None = None
    mask_real: Tensor | None = None
    mix: Tensor | None = None

    def chunks(self, count: int) -> Iterator[Batch]:
        """`count` micro-batches of equal size, in order."""
        columns = [getattr(self, field.name) for field in fields(self)]
        return map(Batch, *([None] * count if c is None else c.chunk(count) for c in columns))

    @property
    def both(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images, labels and mask of fake and real in one."""
        mask = None
        if self.mask_fake is not None and self.mask_real is not None:
            mask = torch.cat([self.mask_fake, self.mask_real])
        return torch.cat([self.fake, self.real]), torch.cat([self.fake_labels, self.labels]), mask


def squared_gradient_norms(D: nn.Module, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """|grad_x D(x)|^2 for each image of x (N, 3, R, R): (N,), differentiable in D's weights."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(D(x, y, mask=mask).sum(), x, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


def r1(D: nn.Module, batch: Batch) -> Tensor:
    """1/2 E|grad D(x)|^2 on real images (eq. 5; Mescheder et al., 2018)."""
    return squared_gradient_norms(D, batch.real, batch.labels, batch.mask_real).mean() / 2


def between(D: nn.Module, batch: Batch) -> Tensor:
    """E(|grad D(x)| - 1)^2 at points between real images and G's (Gulrajani et al., 2017), under the real labels."""
    assert batch.mix is not None
    share = batch.mix[:, None, None, None]
    points = share * batch.real + (1 - share) * batch.fake
    squares = squared_gradient_norms(D, points, batch.labels, batch.mask_real)
    # The norm's derivative at 0 is infinite: where the gradient is 0 the penalty is the constant 1.
    still = squares == 0  # written so that NaN stays NaN
    norms = torch.where(still, 1.0, squares).sqrt() * ~still
    return (norms - 1).square().mean()


def strengths(config: Config) -> dict[str, float]:
    """The gradient penalties that the configuration asks for, by name, with their strengths; empty where none is.

    Raises `UserError` for an unknown name.
    """
    regularizers = config.regularizers
    asked = regularizers.gradient_penalty
    found = {
        "r1": regularizers.r1,
        "gradient": make_loss(config.loss).gradient_penalty if asked is None else asked,
        **regularizers.gradient_penalties,
    }
    for name in found:
        check_known(name, GRADIENT_PENALTIES, "regularizers.gradient_penalties")
    return {name: strength for name, strength in found.items() if strength}


def gradient_penalties(D: nn.Module, batch: Batch, wanted: dict[str, float]) -> dict[str, Tensor]:
    """The penalties of these names and strengths on one (micro-)batch, scalars."""
    if not wanted:
        return {}
    with not_collecting(D):
        return {name: strength * GRADIENT_PENALTIES[name](D, batch) for name, strength in wanted.items()}
