"""The detectors that search a run's record, listed in `DETECTORS`. A new one is a class and one line there.

Another package adds its own from an extension (`spectra.extensions`). A monitor feeds them while it trains, and
`spectra.detect_run` feeds them the finished record: both get the same findings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spectra.detect.finding import Finding
from spectra.detect.sigma import Explosions, Spikes
from spectra.detect.thresholds import ExplosionThresholds, SpikeThresholds
from spectra.extensions import load_extensions
from spectra.nearest import nearest


class Detector:
    """Base of all detectors.

    Args:
        thresholds: fields of the class's `thresholds`.

    Attributes:
        at: an instance of `thresholds` with those that were given; None for a class without.
        kinds: the kinds of its findings.
        what: what it looks for, for help and messages ("spikes of sigma_0").
        reads: prefixes of the names of the series that it reads; of a finished record it gets only these.
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


class _OfSigma(Detector):
    """Spikes or explosions, separately in each network; a finding's details name the `network`."""

    reads = ("sigma0/",)
    make: type[Spikes] | type[Explosions]

    def __init__(self, **thresholds: float) -> None:
        super().__init__(**thresholds)
        self._networks: dict[str, Spikes | Explosions] = {}

    def update(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Of every sigma0 among `values`."""
        layers: dict[str, dict[str, float]] = {}
        for name, value in values.items():
            if name.startswith(self.reads):
                layer = name.partition("/")[2]
                layers.setdefault(layer.partition(".")[0], {})[layer] = value
        found = []
        for network, mine in layers.items():
            if network not in self._networks:
                self._networks[network] = self.make(**self.given)
            finding = self._networks[network].update(step, mine)
            if finding is not None:
                details = {"network": network, **finding.details}
                found.append(Finding(finding.kind, finding.step, finding.onset, details))
        return found


class SpikesOfSigma(_OfSigma):
    """`spectra.detect.Spikes` of each network. Spikes are common in training that goes well, and raise no alarm."""

    kinds, what = ("spike",), "spikes of sigma_0"
    make, thresholds = Spikes, SpikeThresholds
    alarms = False


class ExplosionsOfSigma(_OfSigma):
    """`spectra.detect.Explosions` of each network."""

    kinds, what = ("explosion",), "explosions of sigma_0"
    make, thresholds = Explosions, ExplosionThresholds


DETECTORS: dict[str, type[Detector]] = {
    "spikes": SpikesOfSigma,
    "explosions": ExplosionsOfSigma,
}
"""Every detector by name; a monitor takes all of them unless told otherwise."""


def find_detectors(chosen: Sequence[str | Detector] | None = None) -> list[Detector]:
    """Detectors by name, or as they are given; None: all of `DETECTORS`.

    Raises:
        ValueError: an unknown name.
    """
    load_extensions()
    found = []
    for one in DETECTORS if chosen is None else chosen:
        if isinstance(one, Detector):
            found.append(one)
        elif one in DETECTORS:
            found.append(DETECTORS[one]())
        else:
            raise ValueError(f"unknown detector {one!r}{nearest(one, DETECTORS)} Known: {', '.join(DETECTORS)}")
    return found
