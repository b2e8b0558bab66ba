"""The images of each batch, as a function of its position in the run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from biggan import rng
from biggan.data.images import Position


class PositionalSampler(Sampler[list[Position]]):
    """Batches for the D steps k = 0 .. d_steps-1 of each training step from `start` on, without end.

    Each k walks through its own endless sequence of images: for each epoch a permutation keyed by (seed, epoch, k),
    one after another, batch after batch without a gap. So a run can start anywhere, and adding D steps does not change
    the images of the others. `rows`: only these places of each global batch; None: all. The sampler has no state.
    """

    def __init__(
        self, size: int, *, batch: int, d_steps: int, seed: int, start: int = 0, rows: np.ndarray | None = None
    ) -> None:
        self.size, self.batch, self.d_steps, self.seed, self.start = size, batch, d_steps, seed, start
        self.rows = np.arange(batch) if rows is None else rows
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def __iter__(self) -> Iterator[list[Position]]:
        step = self.start
        while True:
            for k in range(self.d_steps):
                yield self.positions(step, k)
            step += 1

    def positions(self, step: int, k: int) -> list[Position]:
        """The global batch of D step `k` of step `step` (both from 0), or the wanted rows of it."""
        places = step * self.batch + self.rows
        keys = rng.generator(self.seed, "data/keys", step, k).integers(0, 2**63, size=self.batch)[self.rows]
        indices = [self._order(int(place) // self.size, k)[place % self.size] for place in places]
        return [Position(int(index), int(key)) for index, key in zip(indices, keys, strict=True)]

    def _order(self, epoch: int, k: int) -> np.ndarray:
        if (epoch, k) not in self._orders:
            # A batch spans few epochs; older orders are not needed again.
            self._orders = {key: value for key, value in self._orders.items() if key[0] >= epoch - 1}
            self._orders[epoch, k] = rng.generator(self.seed, "data/order", epoch, k).permutation(self.size)
        return self._orders[epoch, k]
