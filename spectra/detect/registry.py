"""The detectors that search a run's record, listed in `DETECTORS`. A new one is a class and one line there.

Another package adds its own from an extension (`spectra.extensions`). A monitor feeds them while it trains, and
`spectra.detect_run` feeds them the finished record: both get the same findings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spectra.detect.detector import Detector as Detector
from spectra.detect.finding import Finding
from spectra.detect.losses import TrainingLosses
from spectra.detect.sigma import Explosions, Spikes
from spectra.detect.thresholds import ExplosionThresholds, SpikeThresholds
from spectra.extensions import load_extensions
from spectra.nearest import nearest


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
    "losses": TrainingLosses,
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
