"""How much D memorizes: its scores of training, validation and generated images (Section 4.2, claim 8).

A D that memorizes is right on nearly all training images and on about half of the validation images. Everything here is
computed in eval mode and changes no bit of D, its modes and its gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from biggan.data.images import Images, to_float
from biggan.networks.base import DiscriminatorNetwork
from biggan.networks.spectral_norm import normalized

_BATCH = 256


@contextmanager
def in_eval_mode(D: DiscriminatorNetwork) -> Iterator[None]:
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
def discriminator_logits(D: DiscriminatorNetwork, images: Tensor, labels: Tensor, *, batch: int = _BATCH) -> Tensor:
    """D's logits (N,), on its own device, of images (N, 3, R, R) in [-1, 1] and labels (N,), in eval mode.

    Nothing in D changes: no power iteration, no running statistic, no mode, no gradient. `batch` images at a time.
    """
    device = next(D.parameters()).device
    with in_eval_mode(D):
        parts = zip(images.split(batch), labels.split(batch), strict=True)
        return torch.cat([D(x.to(device), y.to(device)) for x, y in parts])


def input_gradient_norms(D: DiscriminatorNetwork, images: Tensor, labels: Tensor, *, batch: int = _BATCH) -> Tensor:
    """|grad_x D(x)| of each image, (N,): the norm in R1 (eq. 5), in eval mode and without changing D."""
    device = next(D.parameters()).device
    norms = []
    with torch.enable_grad(), in_eval_mode(D):
        for x, y in zip(images.split(batch), labels.split(batch), strict=True):
            x = x.detach().to(device, copy=True).requires_grad_()
            (gradient,) = torch.autograd.grad(D(x, y.to(device)).sum(), x)
            norms.append(gradient.flatten(1).norm(dim=1))
    return torch.cat(norms)


def share_accepted_as_real(logits: Tensor) -> Tensor:
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


def auc(above: Tensor, below: Tensor) -> Tensor:
    """How well logits separate two sets, independent of a threshold: P(a > b) + P(a = b) / 2 of a random pair.

    The area under the ROC curve, ties by mid-ranks: 0.5 for sets that are alike, 1 where every one of `above` (N,) has
    a larger logit than every one of `below` (M,). A scalar in float64; NaN where a logit is NaN or a set is empty.
    """
    above, below = above.double(), below.double()
    if not len(above) or not len(below) or above.isnan().any() or below.isnan().any():
        return above.new_full((), torch.nan)
    order = below.sort().values
    ranks = torch.searchsorted(order, above) + torch.searchsorted(order, above, right=True)
    return ranks.sum().double() / (2 * len(above) * len(below))


def gap(above: Tensor, below: Tensor) -> Tensor:
    """The difference of two sets' mean logits in units of their spread: the root of their pooled unbiased variance.

    A scalar in float64; 0 where the means are equal, Inf where only they differ, NaN where a logit is NaN or a set has
    fewer than two.
    """
    sets = [above.double(), below.double()]
    if min(map(len, sets)) < 2:
        return sets[0].new_full((), torch.nan)
    squares = torch.stack([(one - one.mean()).square().sum() for one in sets]).sum()
    difference = sets[0].mean() - sets[1].mean()
    found = difference / (squares / (len(above) + len(below) - 2)).sqrt()
    return torch.where(difference == 0, difference, found)  # a D with constant output memorizes nothing


def memorization(train: Tensor, val: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Accuracies and measures of memorization from D's logits of three sets of images, as scalars in float64.

    Returns:
        `accuracy/train`, `/val` and `/fake`: the shares on which D is right, by the sign of its logit (Section 4.2),
        from 0 to 1 (a logit of exactly 0 is right only for a generated image). The accuracies depend on D's offset,
        which drifts; the other measures do not:
        `auc/train_val`: training against validation images; 0.5 for a D that memorizes nothing.
        `auc/real_fake` and `auc/val_fake`: training images, and images that D never saw, against generated ones.
        `gap/train_val`: the difference of the mean logits of training and validation images in units of their spread.
        NaN where a logit is NaN, or there are no images.
    """
    return {
        "accuracy/train": share_accepted_as_real(train).double(),
        "accuracy/val": share_accepted_as_real(val).double(),
        "accuracy/fake": 1 - share_accepted_as_real(fake).double(),
        "auc/train_val": auc(train, val),
        "auc/real_fake": auc(train, fake),
        "auc/val_fake": auc(val, fake),
        "gap/train_val": gap(train, val),
    }
