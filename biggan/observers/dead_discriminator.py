"""Detects a dead discriminator during training. Public as `biggan.DeadDiscriminator`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spectra.detect.finding import Finding


@dataclass(frozen=True)
class DeadDiscriminatorThresholds:
    """Of `biggan.DeadDiscriminator`."""

    patience: int = 100
    """Number of consecutive values that a sign needs."""
    spread: float = 1e-2
    """A batch's logits count as constant if their standard deviation is at most this; the hinge margin is 1."""
    loss: float = 1e-3
    """A loss counts as constant if it stays within this, relative to itself or to 1."""
    winning: float = 0.999
    """Accuracy on real and on fake images from which a discriminator has won, and is not dead."""


class DeadDiscriminator:
    """D no longer separates real from fake: its output is constant, its loss is constant, or its accuracies are frozen.

    A finding's details hold `signs`, those of the three that were seen. There is no further finding until all of them
    are gone. The accuracies may be those of the training batches or, better, of fixed images. Accuracies of 0 and 1 are
    not evidence: a D that is right on everything has won, and the output of a D that accepts everything or nothing as
    real may only have an offset.

    Args:
        thresholds: fields of `DeadDiscriminatorThresholds`.
    """

    def __init__(self, **thresholds: float) -> None:
        self.at = DeadDiscriminatorThresholds(**thresholds)  # type: ignore[arg-type]
        self._streaks: dict[str, tuple[int, int, Any]] = {}  # sign -> (the step before, length, first value)
        self._last: int | None = None
        self._dead = False

    def update(
        self,
        step: int,
        *,
        loss: float = math.nan,
        accuracy_real: float = math.nan,
        accuracy_fake: float = math.nan,
        spread: float = math.nan,
    ) -> Finding | None:
        """Take the values of one step; `spread` is the standard deviation of a batch's logits. NaN: not known."""
        before, self._last = step if self._last is None else self._last, step
        pair = (accuracy_real, accuracy_fake)
        won = min(pair) >= self.at.winning
        self._streak("output constant", before, 0, spread <= self.at.spread)
        still = self._streaks.get("loss constant", (0, 0, loss))[2]
        near = abs(loss - still) <= self.at.loss * max(1.0, abs(still)) and not won
        self._streak("loss constant", before, loss, near, restart=math.isfinite(loss) and not won)
        same = self._streaks.get("accuracies frozen", (0, 0, pair))[2] == pair
        telling = all(map(math.isfinite, pair)) and any(0 < share < 1 for share in pair)
        self._streak("accuracies frozen", before, pair, same and telling, restart=telling)
        signs = {sign: start for sign, (start, length, _) in self._streaks.items() if length >= self.at.patience}
        dead, self._dead = self._dead, bool(signs)
        if dead or not signs:
            return None
        return Finding("dead_discriminator", step, min(signs.values()), {"signs": sorted(signs)})

    def _streak(self, sign: str, before: int, value: Any, goes_on: bool, *, restart: bool = False) -> None:
        if goes_on:
            start, length, first = self._streaks.get(sign, (before, 0, value))
            self._streaks[sign] = (start, length + 1, first)
        elif restart:
            self._streaks[sign] = (before, 1, value)
        else:
            self._streaks.pop(sign, None)


def dead_discriminator(
    steps: Sequence[int], series: Mapping[str, Sequence[float]], **thresholds: float
) -> list[Finding]:
    """`DeadDiscriminator` over whole series, called as the arguments of its `update`."""
    detector = DeadDiscriminator(**thresholds)
    found = (
        detector.update(int(step), **dict(zip(series, map(float, row), strict=True)))
        for step, row in zip(steps, zip(*series.values(), strict=True), strict=True)
    )
    return [finding for finding in found if finding]
