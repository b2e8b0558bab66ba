"""The course of a run from made-up records whose answer is known by construction."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interventions.compare.course import course_numbers

STEPS = np.arange(20, 3001, 20)
ONSET = 2000


def layers(**sigma0: Any) -> pd.DataFrame:
    """A spectra frame: `G_linear=f` is the layer G.linear with sigma_0 f(step); its sigma_1 is half, its Frobenius norm
    twice that of a straight line."""
    frames = []
    for name, values in sigma0.items():
        layer = name.replace("__", ".").replace("_", ".", 1)
        values = np.asarray(values(STEPS), float)
        frame = pd.DataFrame(
            {"step": STEPS, "network": layer[0], "layer": layer, "out": 8, "rest": 8, "sigma0": values}
        )
        frames.append(frame.assign(ratio=2.0, frobenius=10.0 + STEPS / 1000))
    return pd.concat(frames, ignore_index=True)


def scalars(loss: Any = lambda s: np.ones(len(s)), **views: float) -> pd.DataFrame:
    steps = np.arange(1, 3001)
    half = np.asarray(loss(steps), float) / 2
    frames = [pd.DataFrame({"step": steps, "name": name, "value": half}) for name in ("loss/D_real", "loss/D_fake")]
    for name, value in views.items():
        frames.append(pd.DataFrame({"step": [1900, 2100], "name": name.replace("__", "/"), "value": [value, 0.0]}))
    return pd.concat(frames, ignore_index=True)


def scores(fid: Any) -> list[dict[str, Any]]:
    return [{"step": step, "weights": "raw", "fid": float(fid(step))} for step in range(100, 3001, 100)]


def course(spectra: pd.DataFrame | None = None, onset: int | None = ONSET, **given: Any) -> dict[str, float | None]:
    frames = {"spectra": layers(G_linear=np.ones_like, D_linear=np.ones_like) if spectra is None else spectra}
    frames["scalars"] = given.get("scalars", scalars())
    return course_numbers(frames, given.get("scores", scores(lambda step: 10)), onset, 3000)


def exponential(rate: float, after: float | None = None) -> Any:
    """exp(rate * step / 1000), with another rate after the onset."""
    return lambda s: np.exp((rate * np.minimum(s, ONSET) + (after or rate) * np.maximum(s - ONSET, 0)) / 1000)


def test_growth_up_to_the_onset() -> None:
    """From step 100 to the onset: 1.9 thousand steps."""
    found = course(layers(G_linear=exponential(0.5), G_other=exponential(0.1), G_third=exponential(0.2),
                          D_a=exponential(0.3), D_b=exponential(0.4), D_c=exponential(0.9)))  # fmt: skip
    assert found["G_first_growth"] == pytest.approx(math.exp(0.5 * 1.9))
    middle = (math.exp(0.1 * 1.9) + math.exp(0.2 * 1.9)) / 2
    assert found["G_first_growth_over_others"] == pytest.approx(math.exp(0.5 * 1.9) / middle)
    assert found["D_median_growth"] == pytest.approx(math.exp(0.4 * 1.9))
    assert found["D_median_ratio_before"] == 2


def test_an_explosion_is_a_faster_rise_after_the_onset() -> None:
    spectra = layers(G_linear=exponential(0.4, 3.0), D_a=exponential(0.4, 1.0))
    found = course(spectra)
    assert found["G_first_rise_after_over_before"] == pytest.approx(math.exp(0.5 * (3.0 - 0.4)))
    assert found["D_rise_after_over_before"] == pytest.approx(math.exp(0.5 * (1.0 - 0.4)))
    healthy = course(spectra, onset=None)
    assert [healthy[name] for name in ("G_first_rise_after_over_before", "D_rise_after_over_before")] == [None, None]
    assert healthy["G_first_growth"] == pytest.approx(math.exp(0.4 * 1.9 + 3.0))  # to the end


def test_noise_is_around_the_trend() -> None:
    """White noise of deviation 0.03 on an exponential is found whatever the trend; the Frobenius norm has none."""
    random = np.random.default_rng(0)
    noisy = {f"D_{n}": (lambda s: exponential(0.5)(s) * np.exp(0.03 * random.standard_normal(len(s)))) for n in "abcde"}
    quiet = {f"G_{n}": (lambda s: exponential(0.9)(s) * np.exp(0.01 * random.standard_normal(len(s)))) for n in "abcde"}
    found = course(layers(**noisy, **quiet))
    assert found["D_noise_over_G"] == pytest.approx(3, rel=0.35)
    assert (found["D_noise_over_frobenius"] or 0) > 100
    # Thinned to a hundred steps the numbers are the same, but for the skewness, which needs more.
    thin = layers(**noisy, **quiet)
    whole, thin = course(thin), course(thin[thin["step"] % 100 == 0])
    assert thin["D_step_skewness"] is None
    assert {k: v for k, v in whole.items() if k != "D_step_skewness"} == {
        k: v for k, v in thin.items() if k != "D_step_skewness"
    }


def test_impulses_have_skewed_steps() -> None:
    """A jump by 1 every 200 steps that decays by a tenth each measurement; and its mirror image in time."""
    jumps = np.zeros(len(STEPS))
    for i in range(1, len(STEPS)):
        jumps[i] = 0.9 * jumps[i - 1] + (i % 10 == 0)
    up = course(layers(D_a=lambda s: np.exp(0.1 * jumps)))["D_step_skewness"]
    down = course(layers(D_a=lambda s: np.exp(0.1 * jumps[::-1])))["D_step_skewness"]
    assert (up or 0) > 2
    assert (down or 0) < -2


@pytest.mark.parametrize("time", [100, 300])
def test_slowing_growth_is_no_impulse(time: int) -> None:
    """A curve that settles has no spike; its first steps, which are its largest, are left out."""
    noise = np.random.default_rng(0).normal(0, 0.01, len(STEPS))
    found = course(layers(D_a=lambda s: (1 + 1.7 * (1 - np.exp(-s / time))) * np.exp(noise)))
    assert abs(found["D_step_skewness"] or 9) < 0.5


def test_ds_loss_before_and_at_the_collapse() -> None:
    """1.4 early, 0.35 before the onset, and 0.7 in the second hundred steps after it."""

    def loss(steps: np.ndarray) -> np.ndarray:
        return np.select([steps <= 1000, steps <= ONSET + 100, steps <= ONSET + 200], [1.4, 0.35, 0.7], 0.1)

    found = course(scalars=scalars(loss))
    assert found["D_loss_before"] == pytest.approx(0.35)
    assert found["D_loss_before_over_early"] == pytest.approx(0.25)
    assert found["D_loss_jump"] == pytest.approx(2)
    broken = course(scalars=scalars(lambda s: np.where(s > ONSET, math.nan, 1.0)))
    assert math.isnan(broken["D_loss_jump"] or 0)


def test_memory_is_that_of_the_last_view_before_the_onset() -> None:
    found = course(scalars=scalars(D__accuracy__train=0.99, D__auc__train_val=0.9))
    assert (found["D/accuracy/train_before"], found["D/auc/train_val_before"]) == (0.99, 0.9)
    assert found["D/accuracy/val_before"] is None


def test_the_fall() -> None:
    """Best 10; above 30 from step 2,400 on, as the median of three: an outlier at 2,100 is not the fall."""

    def fid(step: int) -> float:
        return 90 if step in (700, 2100) else 40 if step >= 2400 else 80 if step == 100 else 10

    found = course(scores=scores(fid))
    assert (found["fall_steps"], found["fall_share"], found["fall_depth"]) == (400, 0.2, 4)
    assert course(scores=scores(lambda step: 10))["fall_steps"] is None
    assert course(scores=scores(fid), onset=None)["fall_depth"] is None
    endless = course(scores=scores(lambda step: math.nan if step > 2300 else 10))
    assert (endless["fall_steps"], endless["fall_depth"]) == (400, math.inf)
