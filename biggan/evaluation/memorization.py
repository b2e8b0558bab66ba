"""How much D knows by heart: its verdicts on training, validation and generated images (Section 4.2, claim 8).

D that memorizes is right on nearly all training images and on about half of the validation images. Everything here is
computed in eval mode and leaves D, its modes and its gradients bit for bit as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from biggan.data.images import Images, to_float
from biggan.discriminator import Discriminator
from biggan.normalization import normalized

BATCH = 256


@contextmanager
def in_eval_mode(D: Discriminator) -> Iterator[None]:
    """D in eval mode, with the normalized weights that its vectors give now, and each module's own mode afterwards."""
    modes = [(module, module.training) for module in D.modules()]
    D.eval()
    try:
        with normalized(D, iterate=False, grad=False):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def discriminator_logits(D: Discriminator, images: Tensor, labels: Tensor, *, batch: int = BATCH) -> Tensor:
    """D's logits (N,), on its own device, of images (N, 3, R, R) in [-1, 1] and labels (N,), in eval mode.

    Nothing of D moves: no power iteration, no running statistic, no mode, no gradient. `batch` images at a time.
    """
    device = next(D.parameters()).device
    with in_eval_mode(D):
        parts = zip(images.split(batch), labels.split(batch), strict=True)
        return torch.cat([D(x.to(device), y.to(device)) for x, y in parts])


def input_gradient_norms(D: Discriminator, images: Tensor, labels: Tensor, *, batch: int = BATCH) -> Tensor:
    """|grad_x D(x)| of each image, (N,): what R1 (eq. 5) would see, in eval mode and leaving D as it was."""
    device = next(D.parameters()).device
    norms = []
    with torch.enable_grad(), in_eval_mode(D):
        for x, y in zip(images.split(batch), labels.split(batch), strict=True):
            x = x.detach().to(device, copy=True).requires_grad_()
            (gradient,) = torch.autograd.grad(D(x, y.to(device)).sum(), x)
            norms.append(gradient.flatten(1).norm(dim=1))
    return torch.cat(norms)


def share_called_real(logits: Tensor) -> Tensor:
    """The share of positive logits, a scalar from 0 to 1; NaN where a logit is NaN."""
    return torch.where(logits.isnan(), logits, (logits > 0).to(logits.dtype)).mean()


def fixed_images(split: Images, count: int | None, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """`count` images of a split, drawn without replacement (None, or more than there are: all of them).

    Returns images (N, 3, R, R) in [-1, 1], never flipped, and their first labels (N,).
    """
    places = np.arange(len(split))
    if count is not None and count < len(split):
        places = np.sort(random.choice(len(split), size=count, replace=False))
    return to_float(torch.from_numpy(split.pixels(places))), torch.from_numpy(split.labels[places])


def accuracies(
    D: Discriminator,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    fake: tuple[Tensor, Tensor],
) -> dict[str, Tensor]:
    """The shares on which D is right, by the sign of its logit, as scalars.

    Args:
        D: left as it was.
        train, val: images and labels that should be called real.
        fake: images of G and their labels, which should not.

    Returns:
        `D/accuracy/train`, `D/accuracy/val` and `D/accuracy/fake`, each from 0 to 1 (on a logit of exactly 0 D is
        right about no one but G); NaN where there are no images or a logit is NaN.
    """
    real = {name: share_called_real(discriminator_logits(D, *one)) for name, one in (("train", train), ("val", val))}
    called = real | {"fake": 1 - share_called_real(discriminator_logits(D, *fake))}
    return {f"D/accuracy/{name}": value for name, value in called.items()}
