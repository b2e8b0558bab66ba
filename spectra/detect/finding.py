"""What a detector says, and what detectors have in common."""

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
        onset: when it began: the last step at which all was well, as far as the series tells.
        details: what there is to say of it, in numbers and texts that JSON can hold.
    """

    kind: str
    step: int
    onset: int
    details: dict[str, Any] = field(default_factory=dict)


def robust(values: Iterable[float]) -> tuple[float, float]:
    """Median, and the standard deviation that the median deviation from it would mean in a normal distribution."""
    values = list(values)
    centre = median(values)
    return centre, 1.4826 * median(abs(value - centre) for value in values)


class Pace:
    """Lets a series through at its usual distance, so that a burst of dense measurements changes no statistics."""

    def __init__(self) -> None:
        self._gaps: deque[int] = deque(maxlen=15)
        self._last: int | None = None

    @property
    def gap(self) -> float:
        """The usual distance, in steps."""
        return median(self._gaps) if self._gaps else 1

    def takes(self, step: int) -> bool:
        """Whether the measurement at `step` is at least half the usual distance from the last that was taken."""
        if self._last is not None:
            if self._gaps and step - self._last < self.gap / 2:
                return False
            self._gaps.append(step - self._last)
        self._last = step
        return True

    def restart(self, step: int) -> None:
        """Go on from `step`, however far from the last."""
        self._last = step
