"""The adversarial losses. A new one is one class with two methods, and one line in `LOSSES` (registries.py).

Logits are 1-D tensors, one entry an image; every loss is a mean over them. D's parts are named, so that both can be
drawn on one scale: `loss/D_real` and `loss/D_fake` add up to D's loss.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from torch.nn import functional as F

from biggan.config import LossConfig
from biggan.errors import check_known
from biggan.objective.registries import LOSSES

if TYPE_CHECKING:
    from torch import Tensor


class Loss:
    """An adversarial loss, made from its configuration."""

    gradient_penalty: float = 0.0
    """Strength of the gradient penalty that belongs to the objective, where the configuration names none."""

    def __init__(self, config: LossConfig) -> None:
        """A loss without settings ignores `config`."""

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """D's loss on real and on fake logits."""

    @abstractmethod
    def generator(self, fake: Tensor) -> Tensor:
        """G's loss on the logits of its images."""


class Hinge(Loss):
    """The hinge loss (Section 3) with margin m: E max(0, m - D(x)) + E max(0, m + D(G(z))); G's is -E D(G(z))."""

    def __init__(self, config: LossConfig) -> None:
        self.margin = config.margin

    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Each is zero once every logit is beyond the margin on its own side."""
        return (self.margin - real).relu().mean(), (self.margin + fake).relu().mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Unbounded on both sides."""
        return -fake.mean()


class NonSaturating(Loss):
    """The original loss (Goodfellow et al., 2014), s the sigmoid: -E log s(D(x)) - E log(1 - s(D(G(z)))).

    G's is the non-saturating one, -E log s(D(G(z))).
    """

    def __init__(self, config: LossConfig) -> None:
        pass

    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Each 0 or more, log 2 at a logit of 0."""
        return F.softplus(-real).mean(), F.softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        """0 or more."""
        return F.softplus(-fake).mean()


class Wasserstein(Loss):
    """The Wasserstein loss (Arjovsky et al., 2017; Appendix G.2): -E D(x) + E D(G(z)); G's is -E D(G(z)).

    With a gradient penalty of strength 10 (Gulrajani et al., 2017) where the configuration names none.
    """

    gradient_penalty = 10.0

    def __init__(self, config: LossConfig) -> None:
        pass

    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Unbounded on both sides."""
        return -real.mean(), fake.mean()

    def generator(self, fake: Tensor) -> Tensor:
        """Unbounded on both sides."""
        return -fake.mean()


def make_loss(config: LossConfig) -> Loss:
    """The loss that the configuration names. Raises `UserError` for an unknown name."""
    check_known(config.name, LOSSES, "loss.name")
    return LOSSES[config.name](config)
