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
        kinds: the kinds of its findings.
        what: what it looks for, for help and messages ("spikes of sigma_0").
        reads: how the names of the series begin that it reads; it is told no others of a finished record.
        thresholds: the dataclass of its thresholds, if it has one.
        alarms: whether a finding becomes an `alarm` event, with the kind as its `cause`, or an event of its own kind.
        needs_every_step: whether it counts steps, and is left out for a record from which some steps were removed.
        is_outcome: whether its first finding is what the other findings of a run lead up to.
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

    def update(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Take the numbers recorded at `step`, by series (others than it reads may be among them); what it finds."""
        return []

    def from_events(self, events: Sequence[Mapping[str, Any]]) -> list[Finding]:
        """What it finds in all events of a run, where it reads those instead of series."""
        return []

    def outcome(self, events: Sequence[Mapping[str, Any]]) -> Finding | None:
        """What the run led up to, by its events. Asked only where the class `is_outcome`."""
        return None


class _OfSigma(Detector):
    """Spikes or explosions, in each network by itself; a finding's details name the `network`."""

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
            raise ValueError(f"there is no detector {one!r}{nearest(one, DETECTORS)} There are {', '.join(DETECTORS)}")
    return found
