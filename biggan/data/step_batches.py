"""The batches of a run, read a whole training step at a time: a step whose images cannot all be read does not begin."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from torch import Tensor

from biggan.data.broken import SkippedImage
from biggan.errors import UserError

LabelledImages = tuple[Tensor, Tensor]
LoadedBatch = tuple[Tensor, Tensor, list[SkippedImage]]
"""What a loader gives: images, labels, and which of them take the place of broken ones."""


class StepBatches(Iterator[LabelledImages]):
    """Real images and labels, one batch for each D step, from step `start` on.

    Raises the `UserError` of an image that cannot be read before the first batch of its step, and again at every
    further call.
    """

    def __init__(self, loaded: Iterator[LoadedBatch | UserError], d_steps: int, start: int) -> None:
        self._loaded: Iterator[LoadedBatch | UserError] | None = loaded
        self._d_steps, self._step = d_steps, start
        self._queue: deque[LabelledImages] = deque()
        self._skipped: list[tuple[int, SkippedImage]] = []
        self.error: UserError | None = None
        """Why the next step cannot be read; None: it has been, or has not been tried."""

    def __next__(self) -> LabelledImages:
        if not self._queue:
            self.read_ahead(self._step)
        if not self._queue:
            assert self.error is not None
            raise self.error
        return self._queue.popleft()

    def read_ahead(self, step: int) -> UserError | None:
        """Read the batches of the step after `step`, if they have not been read; return why they cannot be."""
        if step < self._step or self._loaded is None:
            return self.error
        found: list[LabelledImages] = []
        for _ in range(self._d_steps):
            batch = next(self._loaded)  # the sampler has no end
            if isinstance(batch, UserError):
                self.error, self._loaded = batch, None  # ends the workers now
                return batch
            images, labels, skipped = batch
            found.append((images, labels))
            self._skipped += [(step + 1, one) for one in skipped]
        self._queue.extend(found)
        self._step += 1
        return None

    def take_skipped(self, step: int) -> list[tuple[int, SkippedImage]]:
        """The broken images of the steps up to `step` that were replaced, with their steps; each is taken once."""
        taken = [pair for pair in self._skipped if pair[0] <= step]
        self._skipped = [pair for pair in self._skipped if pair[0] > step]
        return taken
