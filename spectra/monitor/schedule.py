"""When to measure. A schedule is a function of the step and of the alarms so far, so that a resumed run follows it."""

from __future__ import annotations

import math
from typing import Protocol


class Schedule(Protocol):
    """The interface of a schedule."""

    def is_due(self, step: int) -> bool:
        """Whether to measure at `step`. May be called for any step, any number of times."""
        ...

    def alarm(self, step: int) -> None:
        """An alarm was raised at `step`."""
        ...


def as_schedule(every: int | Schedule) -> Schedule:
    """`Every(every)` for a number, else the schedule itself. Raises `TypeError` for anything else."""
    if isinstance(every, type) or not (hasattr(every, "is_due") and hasattr(every, "alarm")):
        return Every(every)  # type: ignore[arg-type]
    return every


class Every:
    """Every `n` steps: those that n divides.

    Raises `ValueError` for n < 1, and `TypeError` for what is not a whole number.
    """

    def __init__(self, n: int) -> None:
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            raise TypeError(f"every is a whole number of steps, or a schedule such as spectra.Logarithmic(); got {n!r}")
        if (n := int(n)) < 1:
            raise ValueError(f"every is a number of steps, at least 1; got {n!r}")
        self.n = n

    def is_due(self, step: int) -> bool:
        """Whether n divides the step."""
        return step % self.n == 0

    def alarm(self, step: int) -> None:
        """Alarms change nothing."""


class Logarithmic:
    """`per_decade` steps in each power of ten, evenly on a logarithmic axis: dense early, sparse late.

    Raises `ValueError` for per_decade < 1.
    """

    def __init__(self, per_decade: int = 20) -> None:
        if per_decade < 1:
            raise ValueError(
                f"per_decade is the number of measurements in a power of ten, at least 1; got {per_decade}"
            )
        self.per_decade = per_decade

    def is_due(self, step: int) -> bool:
        """Whether a point of the logarithmic grid rounds to this step."""
        if step < 1:
            return step == 0
        near = round(math.log10(step) * self.per_decade)
        return any(round(10 ** (i / self.per_decade)) == step for i in (near - 1, near, near + 1))

    def alarm(self, step: int) -> None:
        """Alarms change nothing."""


class Bursts:
    """Another schedule, and every one of the `length` steps after each alarm."""

    def __init__(self, otherwise: Schedule, length: int = 50) -> None:
        if not isinstance(length, int) or length < 0:
            raise ValueError(f"a burst is a whole number of steps, at least 0; got {length!r}")
        self.otherwise, self.length = otherwise, length
        self._alarms: list[int] = []

    def is_due(self, step: int) -> bool:
        """Whether the other schedule measures at this step, or an alarm was at most `length` steps ago."""
        return any(0 < step - alarm <= self.length for alarm in self._alarms) or self.otherwise.is_due(step)

    def alarm(self, step: int) -> None:
        """Begin a burst after `step`."""
        self._alarms = [alarm for alarm in self._alarms if step - alarm <= self.length] + [step]
        self.otherwise.alarm(step)
