"""Reduced precision: bfloat16 and float16 autocast.

Only the networks' forwards (and so their backwards) are reduced. In float32 stay the raw weights, Spectral
Normalization, BatchNorm's statistics, D's last layer and the logits, losses, every penalty, Adam and the average.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
REDUCED = frozenset(DTYPES.values())


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Forwards inside the block run in `precision` on `device`; in float32 the block does nothing.

    No cast is kept for later: a weight cast without a graph must not serve a forward that needs one.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision], cache_enabled=False)


def in_full_precision(x: Tensor) -> AbstractContextManager:
    """Leave an enclosing `autocast` on x's device."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if kind in ("cpu", "cuda") else nullcontext()


def widened(x: Tensor) -> Tensor:
    """x in float32 where it was reduced, else x itself."""
    return x.float() if x.dtype in REDUCED else x
