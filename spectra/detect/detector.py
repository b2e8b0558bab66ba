"""What every detector is. Public as `spectra.Detector`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spectra.detect.finding import Finding


class Detector:
    """Base of all detectors.

    Args:
        thresholds: fields of the class's `thresholds`.

    Attributes:
        at: an instance of `thresholds` with those that were given; None for a class without.
        kinds: the kinds of its findings.
        what: what it looks for, for help and messages ("spikes of sigma_0").
        reads: prefixes of the names of the series that it reads (see `wants`); of a finished record it gets only
            these.
        thresholds: the dataclass of its thresholds, if it has one.
        alarms: whether a finding becomes an `alarm` event, with the kind as its `cause`, or an event of its own kind.
        needs_every_step: whether it counts steps; it is then skipped for a record from which steps were removed.
        is_outcome: whether its first finding is the outcome of the run (such as a collapse) that leads are counted to.
    """

    kinds: tuple[str, ...] = ()
    what = ""
    reads: tuple[str, ...] = ()
    thresholds: type | None = None
    alarms = True
    needs_every_step = False
    is_outcome = False

    def __init__(self, **thresholds: float) -> None:
        self.given = thresholds
        self.at = None if self.thresholds is None else self.thresholds(**thresholds)

    def wants(self, name: str) -> bool:
        """Whether it reads the series of this name: by default, whether the name begins with one of `reads`."""
        return name.startswith(self.reads)

    def update(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """The findings from the numbers recorded at `step`, by series (which may include series that it does not
        read)."""
        return []

    def from_events(self, events: Sequence[Mapping[str, Any]]) -> list[Finding]:
        """The findings in all events of a run, for a detector that reads events instead of series."""
        return []

    def outcome(self, events: Sequence[Mapping[str, Any]]) -> Finding | None:
        """The outcome of the run, from its events. Called only if the class `is_outcome`."""
        return None
