"""The adversarial losses. A new one is one class with two methods, named in `LOSSES`.

Logits are 1-D tensors, one entry an image; every loss is a mean over them. D's parts are named, so that both can be
drawn on one scale: `loss/D_real` and `loss/D_fake` add up to D's loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from biggan.config import LossConfig
from biggan.errors import check_known

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Protocol):
    """What the game asks of an objective."""

    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """D's loss on real and on fake logits."""

    def generator(self, fake: Tensor) -> Tensor:
        """G's loss on the logits of its images."""


class Hinge:
    """The hinge loss (Section 3) with margin m: E max(0, m - D(x)) + E max(0, m + D(G(z))); G's is -E D(G(z))."""

    def __init__(self, config: LossConfig) -> None:
        self.margin = config.margin

    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Each zero once every logit lies outside the margin on its own side."""
        return (self.margin - real).relu().mean(), (self.margin + fake).relu().mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Unbounded on both sides."""
        return -fake.mean()


LOSSES: dict[str, type[Hinge]] = {"hinge": Hinge}


def make_loss(config: LossConfig) -> Loss:
    """The loss that the configuration names. Raises `UserError` for an unknown name."""
    check_known(config.name, LOSSES, "loss.name")
    return LOSSES[config.name](config)
