"""The table by which the thresholds of `spectra.detect.AnyLoss` were chosen: false alarms, hits, delays, onsets.

`pytest -n 0 -s -m slow tests/campaigns/test_any_loss.py` prints it; the bounds are a little wider than what was found.
"""

from __future__ import annotations

import numpy as np
import pytest
from series import BAD_LOSSES, CALM_LOSSES, LOSS_NOISES, any_loss

from spectra import detect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SIZES, SEEDS = (0.03, 0.1, 0.3), range(12)


@pytest.mark.parametrize("noise", LOSS_NOISES)
def test_calm_losses(noise: str) -> None:
    """A random walk has no level that a rise could be told from; bursts of up to eight values at times come in twos."""
    for kind in CALM_LOSSES:
        runs = [any_loss(kind, noise, size, seed)[:2] for size in SIZES for seed in SEEDS]
        found = [detect.loss_troubles(*run) for run in runs]
        said = float(np.mean([bool(one) for one in found]))
        print(f"{noise}, {kind:22} false alarms in {said:.3f} of {len(runs)} series, {sum(map(len, found))} in all")
        assert said <= {"wanders": 0.4, "bursts": 0.35}.get(kind, 0.03)


@pytest.mark.parametrize("noise", LOSS_NOISES)
def test_losses_that_go_wrong(noise: str) -> None:
    for kind in BAD_LOSSES:
        hit, early, count, delay, error = [], [], [], [], []
        for size in SIZES:
            for seed in SEEDS:
                steps, values, onset = any_loss(kind, noise, size, seed)
                found = detect.loss_troubles(steps, values)
                later = [f for f in found if f.step > onset]
                hit.append(bool(later))
                early.append(len(later) < len(found))
                count.append(len(found))
                delay += [f.step - onset for f in later[:1]]
                error += [abs(f.onset - onset) for f in later[:1]]
        row = [np.mean(hit), np.mean(early), np.mean(count), *np.quantile(delay, (0.5, 0.9)), np.quantile(error, 0.9)]
        heads = ("hit", "early", "each", "delay", "delay 90%", "|onset| 90%")
        print(f"{noise}, {kind:22}" + "  ".join(f"{head} {x:.2f}" for head, x in zip(heads, row, strict=True)))
        assert row[0] >= (0.8 if "jump" in kind else 0.97)
        assert row[1] <= 0.03
        assert row[2] <= 2
        assert row[4] <= (300 if kind == "all is lost" else 100)
        assert row[5] <= 60
