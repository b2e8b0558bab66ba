"""The detector for a discriminator that memorizes its training images: an early sign of a collapse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from spectra.detect.finding import Finding
from spectra.detect.registry import Detector

_SERIES = "D/auc/train_val"


@dataclass(frozen=True)
class MemorizationThresholds:
    """Of `DiscriminatorMemorizes`."""

    auc: float = 0.85
    """The probability that D ranks a training image above a validation image; 0.5: it has memorized nothing. Chosen by
    the largest Youden's J over the first 98 runs of the recorded study of `digits-collapse` (docs/research/verdicts.md,
    with the error rates out of sample)."""
    again: float = 0.75
    """There is no further finding until it has been below this, so that noise around `auc` is one finding."""


class DiscriminatorMemorizes(Detector):
    """D tells its training images from validation images (Section 4.2, Appendix G.2).

    No recorded series warns clearly better of a collapse, and the step number alone warns worse. It comes early,
    and also in runs that do not collapse: therefore it is an event and no alarm. A NaN is no memorization.
    """

    kinds, what = ("memorization",), "a D that memorizes its training images"
    reads, thresholds = (_SERIES,), MemorizationThresholds
    alarms = False

    def __init__(self, **thresholds: float) -> None:
        super().__init__(**thresholds)
        self._limits = MemorizationThresholds(**thresholds)
        self._memorizes = False

    def update(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Where D's fixed images were ranked at this step."""
        auc = values.get(_SERIES, math.nan)
        if self._memorizes:
            self._memorizes = not auc < self._limits.again
            return []
        self._memorizes = auc >= self._limits.auc
        return [Finding("memorization", step, step, {"auc": auc})] if self._memorizes else []
