"""A dead discriminator, and the living ones that look like it."""

from __future__ import annotations

import math

import numpy as np

from biggan.observers.dead_discriminator import dead_discriminator

NAN = math.nan


def test_a_dead_discriminator() -> None:
    steps = np.arange(1, 501)
    random = np.random.default_rng(0)
    alive = {
        "loss": 1.5 + 0.3 * random.standard_normal(500),
        "accuracy_real": random.integers(10, 33, 500) / 32,
        "accuracy_fake": random.integers(10, 33, 500) / 32,
        "spread": random.uniform(0.1, 2, 500),
    }
    assert dead_discriminator(steps, alive) == []
    won = alive | {"loss": np.zeros(500), "accuracy_real": np.ones(500), "accuracy_fake": np.ones(500)}
    assert dead_discriminator(steps, won) == []
    offset = alive | {"accuracy_real": np.ones(500), "accuracy_fake": np.zeros(500)}
    assert dead_discriminator(steps, offset) == []
    for sign, dead in {
        "output constant": {"spread": 1e-4},
        "loss constant": {"loss": 2.0},
        "accuracies frozen": {"accuracy_real": 0.1, "accuracy_fake": 0.9},
    }.items():
        series = alive | {name: np.where(steps > 300, value, alive[name]) for name, value in dead.items()}
        (found,) = dead_discriminator(steps, series)
        assert (found.kind, found.onset, found.step) == ("dead_discriminator", 300, 400)
        assert found.details["signs"] == [sign]
    assert dead_discriminator(steps, {name: np.full(500, NAN) for name in alive}) == []
