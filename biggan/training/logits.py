"""Statistics of D's logits at every step, from the forward passes that an update makes anyway.

The paper's hypothesis (Appendix G.2) is that D's signal from real images dries up, and that D becomes biased: see
`D/inside_margin/real`, and `D/bias` with the linear and the projection part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from biggan.distributed.collectives import all_sum
from biggan.distributed.ranks import BatchShard

if TYPE_CHECKING:
    from biggan.networks.base import DiscriminatorNetwork

_KINDS = ("fake", "real")


@torch.no_grad()
def logit_statistics(
    D: DiscriminatorNetwork, seen: Sequence[Tensor], margin: float, share: BatchShard
) -> dict[str, Tensor]:
    """Statistics of the logits of one update of D, as scalars, from its forward passes.

    Args:
        D: before its update.
        seen: a micro-batch each: the linear and the projection part (2, N) of N logits, the first half of them fake.
        margin: the hinge's (the loss has a gradient only in images inside it).
        share: which images of the global batch these are; the others' logits come from the other processes.

    Returns:
        For "fake" and for "real": `accuracy/D_*`, the share on the right side of zero; `D/inside_margin/*`, the share
        of real images below +margin, of fake ones above -margin; `D/logit_mean/*`, `_std`, `_min` and `_max`;
        `D/linear_mean/*` and `D/projection_mean/*`, which add up to the logits' mean; and `D/bias`, the linear
        layer's. Over several updates of a step the record holds the means of each.
    """
    parts = torch.cat([micro.unflatten(1, (2, -1)) for micro in seen], dim=2)  # linear | projection, fake | real, N
    if not share.whole:
        everyones = parts.new_zeros(*parts.shape[:2], share.batch)
        everyones[:, :, share.rows_on(parts.device)] = parts
        parts = all_sum(everyones)
    logits = parts.sum(dim=0)
    linear, projection = parts.mean(dim=2)
    fake, real = logits
    std, mean = torch.std_mean(logits, dim=1, correction=0)
    pairs = {
        "accuracy/D_": _shares(torch.stack([fake < 0, real > 0]), logits),
        "D/inside_margin/": _shares(torch.stack([fake > -margin, real < margin]), logits),
        "D/logit_mean/": mean,
        "D/logit_std/": std,
        "D/logit_min/": logits.amin(dim=1),
        "D/logit_max/": logits.amax(dim=1),
        "D/linear_mean/": linear,
        "D/projection_mean/": projection,
    }
    numbers = {f"{name}{kind}": value for name, pair in pairs.items() for kind, value in zip(_KINDS, pair, strict=True)}
    last = getattr(D, "linear", None)
    return numbers if last is None else numbers | {"D/bias": last.bias.detach().reshape(()).clone()}


def _shares(which: Tensor, logits: Tensor) -> Tensor:
    """The shares (2,) of logits (2, N) for which the condition holds; NaN if a logit is NaN."""
    return torch.where(logits.isnan(), logits, which.to(logits.dtype)).mean(dim=1)
