"""Reduced precision: bfloat16 and float16 autocast, and float16's loss scaling.

Only the networks' forwards (and so their backwards) are reduced. In float32 stay the raw weights, Spectral
Normalization, BatchNorm's statistics, D's last layer and the logits, losses, every penalty, Adam and the average.
"""

from __future__ import annotations

from collections.abc import Iterable
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


class LossScaler:
    """Keeps float16 gradients of one network from vanishing: its loss is multiplied by `scale` before the backward.

    An update whose gradients are not finite is skipped and halves the scale; `INTERVAL` finite ones in a row double
    it, up to `HIGHEST`: the span of float16, from its smallest number 2^-24 to 2^16. More would serve gradients below
    2^-64 alone, which Adam's eps silences, and end at infinity, from which no halving leads back. `scale` (float32) and
    `finite_updates` (int32) are scalars on the device, and nothing here waits for it.
    """

    START, LOWEST, HIGHEST, INTERVAL = 2.0**16, 2.0**-14, 2.0**40, 2000

    def __init__(self, device: torch.device | str) -> None:
        self.scale = torch.full((), self.START, device=device)
        self.finite_updates = torch.zeros((), dtype=torch.int32, device=device)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        return {"scale": self.scale, "finite_updates": self.finite_updates}

    @torch.no_grad()
    def unscale(self, gradients: list[Tensor]) -> Tensor:
        """Divide the gradients by the scale, in place. Returns a scalar: 1.0 where one is not finite, else 0.0.

        The update is skipped by that scalar, and `move` told of it.
        """
        torch._foreach_mul_(gradients, self.scale.reciprocal())
        largest = torch._foreach_norm(gradients, torch.inf)  # NaN stays NaN
        return (~torch.stack(largest).isfinite().all()).float()

    @torch.no_grad()
    def move(self, skip: Tensor) -> None:
        """Move the scale after an update, or after one of a frozen network, whose gradients overflow as well."""
        count = self.finite_updates + 1
        grow = count >= self.INTERVAL
        moved = torch.where(skip > 0, self.scale / 2, torch.where(grow, self.scale * 2, self.scale))
        self.scale.copy_(moved.clamp(self.LOWEST, self.HIGHEST))
        self.finite_updates.copy_(torch.where((skip > 0) | grow, torch.zeros_like(count), count))


def step_unless(skip: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """The optimizer's step, or nothing where the scalar `skip` is 1.0, without asking which."""
    optimizer.found_inf = skip  # type: ignore[attr-defined] # read by fused optimizers
    optimizer.step()
    del optimizer.found_inf  # type: ignore[attr-defined]


class Snapshot:
    """Copies of `tensors`, to be put back where an update turns out to be skipped."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = list(tensors)
        self.copies = [tensor.detach().clone() for tensor in self.tensors]

    @torch.no_grad()
    def put_back_where(self, skip: Tensor) -> None:
        """Undo everything since where the scalar `skip` is 1.0; else leave everything, without asking which."""
        for tensor, copy in zip(self.tensors, self.copies, strict=True):
            tensor.copy_(torch.where(skip > 0, copy, tensor))
