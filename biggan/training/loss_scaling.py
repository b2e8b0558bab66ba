"""float16's loss scaling: gradients that would vanish are scaled up, and updates that overflow are skipped."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class LossScaler:
    """Keeps float16 gradients of one network from vanishing: its loss is multiplied by `scale` before the backward.

    An update whose gradients are not finite is skipped and halves the scale; `INTERVAL` finite ones in a row double
    it, up to `HIGHEST`: the span of float16, from its smallest number 2^-24 to 2^16. More would serve only gradients
    below 2^-64, which Adam's eps makes irrelevant, and end at infinity, from which halving does not return.
    `scale` (float32) and `finite_updates` (int32) are scalars on the device, and nothing here waits for it.
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

        `step_unless` and `move` take that scalar.
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
    """The optimizer's step, or nothing where the scalar `skip` is 1.0. Does not wait for the device."""
    optimizer.found_inf = skip  # type: ignore[attr-defined] # read by fused optimizers
    optimizer.step()
    del optimizer.found_inf  # type: ignore[attr-defined]


class TensorBackup:
    """Copies of `tensors`, to be put back where an update turns out to be skipped."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = list(tensors)
        self.copies = [tensor.detach().clone() for tensor in self.tensors]

    @torch.no_grad()
    def put_back_where(self, skip: Tensor) -> None:
        """Undo everything since where the scalar `skip` is 1.0; else leave everything. Does not wait for the device."""
        for tensor, copy in zip(self.tensors, self.copies, strict=True):
            tensor.copy_(torch.where(skip > 0, copy, tensor))
