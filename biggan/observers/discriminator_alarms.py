"""The detectors for a discriminator's recorded numbers: jumps of its loss, and a dead D."""

from __future__ import annotations

import math
from collections.abc import Mapping

from biggan.observers.dead_discriminator import DeadDiscriminator, DeadDiscriminatorThresholds
from spectra.detect.finding import Finding
from spectra.detect.loss import LossJump
from spectra.detect.registry import Detector
from spectra.detect.thresholds import LossJumpThresholds

LOSS = ("loss/D_real", "loss/D_fake")


class DiscriminatorLossJumps(Detector):
    """Jumps of D's loss, the sum of its two parts.

    The loss approaches 0 while D wins, and jumps up at collapse (Section 4.2, Figure 27c). If D has memorized the
    images,
    short bursts of the loss are common; they do not count as jumps. An untrained D has a hinge loss of 2.
    """

    kinds, what = ("loss_jump",), "jumps of D's loss"
    reads, thresholds = LOSS, LossJumpThresholds
    needs_every_step = True

    def __init__(self, **thresholds: float) -> None:
        super().__init__(**thresholds)
        self._detector = LossJump(**thresholds)

    def update(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Where both parts are among `values`."""
        if not all(name in values for name in LOSS):
            return []
        found = self._detector.update(step, sum(values[name] for name in LOSS))
        return [] if found is None else [found]


class DiscriminatorDeath(Detector):
    """A dead D: from its training batches at every step, and from fixed images at the steps at which they were
    measured."""

    kinds, what = ("dead_discriminator",), "a dead D"
    reads = (*LOSS, "accuracy/D_", "D/logit_std/", "D/accuracy/")
    thresholds = DeadDiscriminatorThresholds

    evaluations = 5
    """Number of consecutive equal accuracies: training batches never repeat, fixed images do."""

    def __init__(self, **thresholds: float) -> None:
        super().__init__(**thresholds)
        self._batches = DeadDiscriminator(**thresholds)
        self._fixed = DeadDiscriminator(**{**thresholds, "patience": self.evaluations})

    def update(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Whatever of D's numbers is among `values`."""
        found = []
        if "accuracy/D_real" in values:
            spreads = [values.get(f"D/logit_std/{kind}", math.nan) for kind in ("real", "fake")]
            finding = self._batches.update(
                step,
                loss=sum(values.get(name, math.nan) for name in LOSS),
                accuracy_real=values["accuracy/D_real"],
                accuracy_fake=values.get("accuracy/D_fake", math.nan),
                spread=max(spreads) if all(map(math.isfinite, spreads)) else math.nan,
            )
            found.append((finding, "training batches"))
        if "D/accuracy/train" in values:
            real, fake = values["D/accuracy/train"], values.get("D/accuracy/fake", math.nan)
            found.append((self._fixed.update(step, accuracy_real=real, accuracy_fake=fake), "fixed images"))
        return [Finding(f.kind, f.step, f.onset, {"seen_on": where, **f.details}) for f, where in found if f]
