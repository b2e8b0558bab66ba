"""The result type of all detectors, and what they share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Finding:
    """Something that happened.

    Attributes:
        kind: "spike", "explosion", "loss_jump", or what another detector finds.
        step: when it was found.
        onset: when it began: the last step without the problem, according to the series.
        details: its properties, as numbers and texts that JSON can hold.
    """

    kind: str
    step: int
    onset: int
    details: dict[str, Any] = field(default_factory=dict)


def robust(values: Iterable[float]) -> tuple[float, float]:
    """The median, and the robust standard deviation: the median absolute deviation scaled for a normal distribution."""
    values = list(values)
    centre = median(values)
    return centre, 1.4826 * median(abs(value - centre) for value in values)


class Pace:
    """Thins a series to its usual distance, so that a burst of dense measurements does not change its statistics."""

    def __init__(self) -> None:
        self._gaps: deque[int] = deque(maxlen=15)
        self._last: int | None = None

    @property
    def gap(self) -> float:
        """The usual distance, in steps."""
        return median(self._gaps) if self._gaps else 1

    def takes(self, step: int) -> bool:
        """Whether the measurement at `step` is at least half the usual distance from the last accepted one."""
        if self._last is not None:
            if self._gaps and step - self._last < self.gap / 2:
                return False
            self._gaps.append(step - self._last)
        self._last = step
        return True

    def restart(self, step: int) -> None:
        """Continue from `step`, at any distance from the last one."""
        self._last = step
