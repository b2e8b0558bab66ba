"""A memorizing D is one event while it lasts, and no alarm."""

from __future__ import annotations

import math

import pytest

from biggan.observers.memorizing_discriminator import DiscriminatorMemorizes
from spectra.detect.online import Detectors

SERIES = "D/auc/train_val"


@pytest.mark.parametrize(
    ("series", "steps"),
    [
        ([0.5, 0.84, 0.85, 0.9, 0.8, 0.9], [200]),  # noise around the threshold is one finding
        ([0.9, 0.74, 0.84, 0.86], [0, 300]),  # it forgot, and memorized again
        ([math.nan, 0.9, math.nan, 0.9], [100]),
        ([0.15, 0.1], []),  # ranking them the other way round is no memory of the training images
    ],
)
def test_when_it_is_found(series: list[float], steps: list[int]) -> None:
    detector = DiscriminatorMemorizes()
    found = [finding for i, auc in enumerate(series) for finding in detector.update(100 * i, {SERIES: auc})]
    assert [(one.kind, one.step, one.onset) for one in found] == [("memorization", step, step) for step in steps]
    assert all(one.details == {"auc": series[one.step // 100]} for one in found)


def test_other_steps_say_nothing() -> None:
    assert DiscriminatorMemorizes(auc=0.0).update(3, {"loss/G": 1.0}) == []


def test_thresholds_are_checked() -> None:
    with pytest.raises(TypeError):
        DiscriminatorMemorizes(level=0.9)


def test_it_is_an_event_of_a_run_and_no_alarm() -> None:
    detectors = Detectors()
    (finding,) = [one for one in detectors.update(7, {SERIES: 0.99}) if one.kind == "memorization"]
    assert not detectors.is_alarm(finding)
