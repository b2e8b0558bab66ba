"""The exponential moving average of G's parameters (Section 3, Appendix C)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from biggan.config import EMAConfig
from biggan.networks.base import GeneratorNetwork
from biggan.networks.walk import buffers_of, parameters_of


class EMA:
    """Holds the averaged generator as `network`.

    Only parameters are averaged. Buffers are copies of G's: starting points for the power iteration on the averaged
    weights, and statistics that standing statistics replace before the average is used (Appendix C.1).
    """

    def __init__(self, G: GeneratorNetwork, config: EMAConfig) -> None:
        self.config = config
        self.network = copy.deepcopy(G).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, G: GeneratorNetwork, step: int, skipped: Tensor | None = None) -> None:
        """Take in G after its step number `step` (from 1): a copy up to `ema.start`, the average afterwards.

        If the scalar `skipped` is 1.0, G has taken no step, and the average is not changed.
        """
        average: list[Tensor] = list(parameters_of(self.network))
        current = [parameter.detach() for parameter in parameters_of(G)]
        if step <= self.config.start:
            torch._foreach_copy_(average, current)
        elif skipped is None:
            torch._foreach_lerp_(average, current, 1 - self.config.decay)
        else:
            share = (1 - self.config.decay) * (1 - skipped)
            torch._foreach_lerp_(average, current, [share] * len(average))
        if buffers := buffers_of(G):  # none without BatchNorm and Spectral Normalization
            torch._foreach_copy_(buffers_of(self.network), buffers)
