"""Activation checkpointing: a block's inside is computed again in the backward pass instead of being kept.

The graph is the same, so the bits are. Normalized weights are those of the update (`normalized`), nothing in a block
draws random numbers, and BatchNorm counts the second pass into no statistics.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from biggan.networks.batchnorm import counted_already
from biggan.networks.reparametrization import Reparametrized


def run_block(block: nn.Module, *inputs: Tensor | None, recompute: bool) -> Tensor:
    """The block's output; with `recompute`, all that is kept for the backward pass are its inputs."""
    if not recompute or not torch.is_grad_enabled():
        return block(*inputs)
    for layer in block.modules():
        if isinstance(layer, Reparametrized):
            layer.make_awaited()  # outside of what is computed again
    return checkpoint(
        block,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), counted_already(block)),
    )
