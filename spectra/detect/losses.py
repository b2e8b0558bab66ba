"""The detector for the losses of any training: which scalars are losses, and `AnyLoss` of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from spectra.detect.any_loss import AnyLoss
from spectra.detect.detector import Detector
from spectra.detect.finding import Finding
from spectra.detect.thresholds import AnyLossThresholds

LOSS_NAME = r"([^.]*[^a-z.])?([Ll]oss|LOSS)(es)?(?![ _/-]?(scale|weight|coef))([^a-z.][^.]*)?"
"""The names of losses: with "loss" as a word of its own ("loss", "train_loss", "loss/G", "valLoss"), and without a dot,
which stands in the names of layers and parameters. It is read by TensorBoard's page, too."""

SEARCHED_ELSEWHERE: dict[str, tuple[str, ...]] = {}
"""Losses with a detector of their own: where the series before the colon is recorded at a step, those behind it are
left out."""


class TrainingLosses(Detector):
    """`spectra.detect.AnyLoss` of every loss among the scalars; a finding's details name the `loss`.

    Args:
        series: the names of the losses; none: those that `LOSS_NAME` matches.
        thresholds: fields of `AnyLossThresholds`.
    """

    kinds = ("loss_jump", "divergence", "loss_not_finite")
    what = "jumps, divergence and lasting NaN of any loss"
    thresholds = AnyLossThresholds

    def __init__(self, *series: str, **thresholds: float) -> None:
        super().__init__(**thresholds)
        self.series = series
        self._losses: dict[str, AnyLoss] = {}
        self._wanted: dict[str, bool] = {}

    def wants(self, name: str) -> bool:
        """Whether this is one of the losses."""
        if name not in self._wanted:
            self._wanted[name] = name in self.series if self.series else re.fullmatch(LOSS_NAME, name) is not None
        return self._wanted[name]

    def update(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Of every loss among `values`."""
        names = [name for name in values if self.wants(name)]
        if not names:
            return []
        others = () if self.series else _searched_elsewhere(values)
        found = []
        for name in names:
            if name in others:
                continue
            loss = self._losses.setdefault(name, AnyLoss(**self.given))
            if (finding := loss.update(step, values[name])) is not None:
                details: dict[str, Any] = {"loss": name, **finding.details}
                found.append(Finding(finding.kind, finding.step, finding.onset, details))
        return found


def _searched_elsewhere(values: Mapping[str, float]) -> Sequence[str]:
    return [name for mark, names in SEARCHED_ELSEWHERE.items() if mark in values for name in names]
