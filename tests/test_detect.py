"""Detectors on series whose answer is known, online and whole alike, and quiet where nothing happened."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from detector_series import evaluations, losses, sigmas
from torch import nn

import spectra
from spectra import detect
from spectra.cli import main
from spectra.detect import Collapse
from spectra.detectors import collapse_of, detect_run, judge_events
from spectra.findings_table import finding_rows
from spectra.records import read_event_lines

STEPS = list(range(100, 6100, 100))
NAN = math.nan


def noisy(values: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    return values * np.exp(share * np.random.default_rng(seed).standard_normal(len(values)))


def fids(low: float, seed: int = 0, start: float = 2000.0) -> np.ndarray:
    """Falls to `low`, with single evaluations that jump by 1.2 to 2.4 times."""
    x = np.arange(60)
    values = noisy(low + start * np.exp(-x / 3), 0.05, seed)
    values[7::11] *= 2.4
    values[5::6] *= 1.3
    return values


def spreads(high: float = 0.8) -> np.ndarray:
    """A young generator's spread: that of noise at first, then less, then that of a healthy one."""
    values = high * (1 - np.exp(-np.arange(60) / 4.0))
    values[:5] = 1.6, 1.5, 1.2, 0.5, 0.3
    return values


@pytest.mark.parametrize("seed", range(5))
def test_no_collapse_in_healthy_and_slow_runs(seed: int) -> None:
    assert detect.collapse(STEPS, noisy(spreads(), 0.05, seed), fids(100, seed)) is None
    slow = 1000 * 0.95 ** np.arange(60)  # still young after sixty evaluations: no modes, but better and better
    assert detect.collapse(STEPS, np.full(60, 0.02), noisy(slow, 0.02, seed)) is None
    assert detect.collapse(STEPS, np.full(60, NAN), fids(100, seed)) is None
    assert detect.collapse(STEPS, spreads(), np.full(60, NAN)) is None


def test_collapse_after_being_healthy() -> None:
    """Modes are lost, or quality is, each from step 4100 on: said soon, dated to the last good evaluation."""
    spread, fid = noisy(spreads(), 0.03), fids(100)
    lost = spread.copy()
    lost[40:] *= np.maximum(0.1, 0.5 ** np.arange(1, 21))
    found = detect.collapse(STEPS, lost, fid)
    assert (found.kind, found.details["rule"]) == ("collapse", "modes_lost")
    assert 3900 <= found.onset <= 4200
    assert 4200 < found.step <= 4700
    worse = fid.copy()
    worse[40:] *= 5
    found = detect.collapse(STEPS, spread, worse)
    assert found.details["rule"] == "quality_lost"
    assert 3900 <= found.onset <= 4300
    assert 4200 <= found.step <= 4800
    assert found.details["fid"] > 2 * found.details["best_fid_median"]


def test_a_run_that_never_got_its_modes() -> None:
    spread = np.maximum(0.03, 0.4 * np.exp(-np.arange(60) / 3.0))
    fid = noisy(160 + 2000 * np.exp(-np.arange(60) / 2.0), 0.03)
    found = detect.collapse(STEPS, np.minimum(spread, 0.25), fid)
    assert found.details["rule"] == "no_modes"
    assert 500 <= found.onset < found.step <= 3500
    assert detect.collapse(STEPS, np.full(60, 0.03), np.full(60, NAN)).details["rule"] == "no_modes"


def test_collapse_online_is_collapse_on_the_whole_series() -> None:
    spread, fid = spreads(), fids(100)
    spread[30:], fid[12], spread[15] = 0.05, NAN, math.inf
    detector = Collapse()
    online = [f for row in zip(STEPS, spread, fid, strict=True) if (f := detector.update(*row))]
    assert online == detect.judge_collapse(STEPS, spread, fid).findings == [detect.collapse(STEPS, spread, fid)]
    assert detect.collapse(STEPS, spread, fid, patience=8).step == online[0].step + 500
    json.dumps(online[0].details, allow_nan=False)
    with pytest.raises(TypeError, match="pateince"):
        Collapse(pateince=3)


GOOD, BAD = (0.8, 20.0), (0.7, 200.0)


def judged(*evaluations: tuple[float, float], **thresholds: float) -> detect.CollapseJudgement:
    """Of (spread, FID) at steps 10, 20, ..."""
    steps = range(10, 10 * len(evaluations) + 1, 10)
    return detect.judge_collapse(steps, *zip(*evaluations, strict=True), **thresholds)


def test_a_deep_fall_is_said_after_two_evaluations_and_dated_to_the_last_good_one() -> None:
    judgement = judged(*[GOOD] * 8, (0.8, 45.0), GOOD, *[BAD] * 2)
    (fall,) = judgement.findings
    assert (fall.kind, fall.onset, fall.step) == ("collapse", 100, 120)
    assert judgement.lasting == fall
    assert fall.details == {
        "rule": "quality_lost", "fid": 200, "fid_median": 45, "best_fid_median": 20, "spread": 0.7, "best_spread": 0.8,
    }  # fmt: skip
    assert judged(*[GOOD] * 10, BAD).findings == judged(*[GOOD] * 10, BAD, *[GOOD] * 10, BAD, GOOD).findings == []
    assert judged(*[GOOD] * 10, (0.8, math.inf), (0.8, math.inf)).findings[0].onset == 100


def test_the_best_spread_is_the_true_one_while_the_generator_was_good() -> None:
    """Neither the cap up to which spread is judged nor the spread of a generator that has learnt nothing, 1.6."""
    young, fall = [(1.6, 900.0)] * 4 + [(1.2, 300.0)] * 2, [(0.1, 200.0)] * 2
    assert judged(*young, *[(0.95, 20.0)] * 8, *fall).findings[0].details["best_spread"] == 0.95
    assert judged(*young, *[(0.6, 20.0)] * 8, *fall).findings[0].details["best_spread"] == 0.6


def test_a_fall_to_three_times_the_best_is_one() -> None:
    (fall,) = judged(*[GOOD] * 10, *[(0.8, 60.0)] * 8).findings
    assert (fall.onset, fall.step) == (100, 150)  # log2(3 / 2) an evaluation, until there is 2.5 of it
    assert judged(*[GOOD] * 10, *[(0.8, 38.0)] * 30).findings == []


def test_a_spread_below_half_is_no_collapse_while_the_fid_gets_better() -> None:
    better = [(0.35, 20 * 0.95**i) for i in range(1, 13)]
    assert judged(*[GOOD] * 6, *better).findings == []
    (fall,) = judged(*[GOOD] * 6, *[(0.35, 20.0)] * 12).findings
    assert (fall.details["rule"], fall.onset, fall.step) == ("modes_lost", 60, 90)


def test_a_dip_is_a_collapse_that_recovers_and_no_lasting_one() -> None:
    dip = [*[GOOD] * 10, *[BAD] * 5, *[GOOD] * 5]
    once = judged(*dip, *[GOOD] * 20)
    assert [(f.kind, f.onset, f.step) for f in once.findings] == [("collapse", 100, 120), ("recovered", 160, 180)]
    assert once.lasting is None
    again = judged(*dip, *[BAD] * 10)  # once recovered it takes twice the evidence
    assert [(f.kind, f.onset, f.step) for f in again.findings[2:]] == [("collapse", 200, 240)]
    assert again.lasting == again.findings[2]
    # A recovery that comes after so many evaluations is one all the same, but the collapse had been for good.
    late = judged(*[GOOD] * 10, *[BAD] * 20, *[GOOD] * 5)
    assert [f.kind for f in late.findings] == ["collapse", "recovered"]
    assert late.lasting == late.findings[0]
    assert judged(*[GOOD] * 10, *[BAD] * 20, *[GOOD] * 5, lasting=22).lasting is None


def test_until_when_an_onset_could_have_been_found() -> None:
    assert judged(*[GOOD] * 20).judged_until == 150
    assert judged(*[GOOD] * 10).judged_until == 50
    assert judged(*[GOOD] * 9).judged_until is None  # there would be no best before it
    assert judged(*[GOOD] * 20, *[(NAN, NAN)] * 5).judged_until == 150
    assert detect.judge_collapse([], [], []) == detect.CollapseJudgement([], None, None)


def test_well_until_stands_still_from_the_first_doubt_to_the_recovery() -> None:
    detector, seen = Collapse(), []
    for step, (spread, fid) in enumerate([*[GOOD] * 6, *[BAD] * 3, *[GOOD] * 4], 1):
        detector.update(step, spread, fid)
        seen.append(detector.well_until)
    assert seen == [1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6, 12, 13]


@pytest.mark.parametrize("every", [50, 100, 200, 500])
@pytest.mark.parametrize("kind", ["x3", "x10", "slow", "frozen D", "modes only"])
def test_onsets_under_noise(kind: str, every: int) -> None:
    """A share of the table in campaigns/: the last good evaluation but for one, or a softening's noise of 600 steps."""
    for seed in range(3):
        run = evaluations(kind, "lognormal", 0.15, every, seed)
        judgement = detect.judge_collapse(run.steps, run.spread, run.fid)
        assert judgement.lasting is not None
        error = judgement.lasting.onset - run.well_until
        assert -max(every, 600 * (kind == "slow")) <= error <= max(every, 300 * (kind == "slow"))
        assert judgement.lasting.step - run.well_until <= 10 * every


@pytest.mark.parametrize("kind", ["healthy", "oscillating"])
def test_no_lasting_collapse_of_healthy_and_oscillating_runs(kind: str) -> None:
    for seed in range(10):
        run = evaluations(kind, "lognormal", 0.15, 100, seed)
        assert detect.judge_collapse(run.steps, run.spread, run.fid).lasting is None


STUDIES = Path(__file__).parents[1] / "notebooks" / "data"


def test_recorded_runs() -> None:
    """Of 54 recorded branches the four whose D was frozen and whose FID grew collapse, right after the branching point
    (FID there 54, 31, 35 and 345); they were dated to the evaluation behind it (1137, 698, 391 and 1,270)."""
    found = {}
    for events in sorted(STUDIES.glob("*/base-*/*/events.jsonl")):
        judgement = judge_events(read_event_lines(events.parent))
        if judgement.findings:
            assert judgement.findings == [judgement.lasting]
            place = events.parent.relative_to(STUDIES).as_posix()
            found[place] = (judgement.lasting.onset, judgement.lasting.step)
    assert found == {
        "example-plan/base-1/freeze-D": (100, 180),
        "small-study/base-0/freeze-D": (1000, 1200),
        "small-study/base-1/freeze-D": (1000, 1200),
        "small-study/base-2/freeze-D": (1000, 1200),
    }


def test_the_collapse_of_a_run_is_the_lasting_one(tmp_path: Path) -> None:
    """And where nothing was evaluated, what an event says."""
    rows = [*[GOOD] * 10, *[BAD] * 5, *[GOOD] * 5, *[BAD] * 10]
    events = [
        {"event": "evaluation", "step": step, "weights": "raw", "scores": {"spread_share": spread, "fid": fid}}
        for step, (spread, fid) in enumerate(rows, 1)
    ]
    told = {"event": "collapse", "step": 9, "onset": 7}
    assert collapse_of([told, *events]).onset == 20
    assert collapse_of([told, *events[:20]]).onset == 10
    assert (collapse_of([told, *events[:4]]).onset, collapse_of([told]).step, collapse_of(events[:9])) == (7, 9, None)
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    rows = finding_rows(tmp_path)
    assert [(row["kind"], row["onset"]) for row in rows] == [("collapse", 10), ("recovered", 16), ("collapse", 20)]


def sigma(steps: np.ndarray, seed: int = 0) -> np.ndarray:
    """A layer of D: noisy growth of about a tenth in a thousand steps."""
    return noisy(np.exp(1e-4 * steps), 0.01, seed)


def test_a_spike_has_height_decay_and_layers() -> None:
    """Figure 29: at step 1500 two layers of three jump by 1.5 and 1.3, and decay with a half-life of 100 steps."""
    steps = np.arange(20, 3000, 20)
    layers = {name: sigma(steps, seed) for seed, name in enumerate("abc")}
    response = np.where(steps >= 1500, 0.5 ** ((steps - 1500) / 100), 0.0)
    layers["a"] *= np.exp(np.log(1.5) * response)
    layers["b"] *= np.exp(np.log(1.3) * response)
    (found,) = detect.spikes(steps, layers)
    assert found.kind == "spike"
    assert 1440 <= found.onset <= 1480
    assert set(found.details["layers"]) == {"a", "b"}
    assert found.details["height"] == pytest.approx(1.5, rel=0.05)
    assert found.details["layers"]["b"]["height"] == pytest.approx(1.3, rel=0.05)
    for spike in found.details["layers"].values():
        assert spike["peak"] == pytest.approx(1500, abs=20)
        assert spike["decay"] == pytest.approx(100, abs=40)
    assert found.step == pytest.approx(1600, abs=60)
    online = detect.Spikes()
    given = [online.update(int(s), dict(zip(layers, row, strict=True))) for s, *row in zip(steps, *layers.values())]  # noqa: B905
    assert [f for f in given if f] == [found]
    json.dumps(found.details, allow_nan=False)


def test_a_new_level_is_a_spike_without_decay() -> None:
    steps = np.arange(20, 4000, 20)
    (found,) = detect.spikes(steps, {"a": sigma(steps) * np.where(steps >= 1500, 1.5, 1.0)})
    assert found.details["layers"]["a"]["decay"] is None
    assert found.step > 1500 + 50 * 20


def test_a_burst_of_dense_measurements_is_no_spike_and_dates_one() -> None:
    """Every 20 steps, and every step from 1001 to 1050: the noise of single steps must not become what is usual."""
    steps = np.unique(np.concatenate([np.arange(20, 3000, 20), np.arange(1001, 1051)]))
    quiet = sigma(steps)
    assert detect.spikes(steps, {"a": quiet}) == detect.explosions(steps, {"a": quiet}) == []
    response = np.where(steps >= 981, 0.5 ** ((steps - 981) / 30), 0.0)
    (found,) = detect.spikes(steps, {"a": quiet * np.exp(0.5 * response)})
    assert found.details["layers"]["a"]["decay"] == pytest.approx(30, abs=20)


@pytest.mark.parametrize("every", [1, 50])
def test_an_explosion_is_growth_against_its_own_history(every: int) -> None:
    steps = np.arange(1, 101) * every
    grown = sigma(steps)
    exploding = grown * np.exp(np.where(steps > 70 * every, 0.1 * (steps / every - 70), 0.0))
    (found,) = detect.explosions(steps, {"quiet": sigma(steps, 1), "linear": exploding})
    assert set(found.details["layers"]) == {"linear"}
    assert 64 * every <= found.onset <= 72 * every
    assert 70 * every < found.step <= 76 * every
    facts = found.details["layers"]["linear"]
    assert facts["rate"] == pytest.approx(0.1 / every, rel=0.3)
    assert facts["rate"] > 3 * facts["usual_rate"]


def test_steady_growth_and_one_jump_are_no_explosion() -> None:
    steps = np.arange(20, 10_000, 20)
    growing = noisy(np.exp(3e-4 * steps), 0.01)  # twentyfold in ten thousand steps
    assert detect.explosions(steps, {"linear": growing}) == []
    assert detect.explosions(steps, {"linear": growing * np.where(steps > 5000, 2.0, 1.0)}) == []


def test_a_sigma_that_is_not_finite_is_an_explosion_once() -> None:
    steps = np.arange(1, 11)
    values = np.array([1.0, 1, 1, NAN, NAN, math.inf, 1, 1, math.inf, 1])
    found = detect.explosions(steps, {"a": values, "b": np.ones(10)})
    assert [(f.onset, f.step, f.details) for f in found] == [
        (3, 4, {"layers": {"a": {"sigma0": "nan"}}}),
        (8, 9, {"layers": {"a": {"sigma0": "inf"}}}),
    ]
    assert detect.spikes(steps, {"a": values}) == []


def test_a_decay_is_counted_from_the_peak() -> None:
    """A spike that climbs for 200 steps from its onset on and then halves in 100."""
    steps = np.arange(20, 3000, 20)
    since = steps - 1500
    response = np.where(since < 0, 0, np.where(since <= 200, 0.5 + since / 400, 0.5 ** ((since - 200) / 100)))
    (found,) = detect.spikes(steps, {"a": sigma(steps) * np.exp(0.6 * response)})
    spike = found.details["layers"]["a"]
    assert (found.onset, spike["peak"]) == (1480, pytest.approx(1700, abs=20))
    assert spike["decay"] == pytest.approx(100, abs=30)


def test_a_layer_that_turns_nan_while_it_is_high_silences_nobody() -> None:
    for seed in range(3):
        run = sigmas("jump, then NaN", "gaussian", 0.01, seed)
        found = detect.spikes(run.steps, run.layers)
        assert [f.onset for f in found] == pytest.approx(run.spikes, abs=40)
        assert [list(f.details["layers"]) for f in found] == [["a"], ["b"], ["b"]]
        assert [f.details["layers"][n]["decay"] is None for f, n in zip(found, "abb", strict=True)] == [
            True,
            False,
            False,
        ]
        assert found[0].step == run.steps[64]  # the first NaN


def test_a_layer_that_is_measured_no_more_and_one_on_a_new_level_hold_others_back_for_a_while_only() -> None:
    run = sigmas("new level", "gaussian", 0.01, 0)
    begin = run.spikes[0]
    rows = list(zip(run.steps.tolist(), *(run.layers[n].tolist() for n in "ab"), strict=True))
    detector = detect.Spikes()
    found = [
        f for step, a, b in rows if (f := detector.update(step, {"b": b} | ({"a": a} if step <= begin + 40 else {})))
    ]
    assert [(list(f.details["layers"]), f.onset) for f in found] == [(["a"], pytest.approx(begin, abs=40))]
    # Layers that jump one after the other, each for good: what is over is given all the same.
    steps = np.arange(20, 8000, 20)
    layers = {name: sigma(steps, i) * np.where(steps >= 1500 + 800 * i, 1.5, 1) for i, name in enumerate("abcd")}
    found = detect.spikes(steps, layers)
    assert all(f.step - f.onset <= 1.1 * 20 * 60 for f in found)
    assert sorted(name for f in found for name in f.details["layers"]) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("kind", ["steady", "power", "exponential"])
def test_outliers_are_no_spikes(kind: str) -> None:
    """Noise of which one value in fifty lies beyond three deviations gave spikes in a third of such series."""
    for seed in range(8):
        run = sigmas(kind, "heavy", 0.03, seed)
        assert detect.spikes(run.steps, run.layers) == []


def test_growth_that_gets_faster_by_and_by_is_an_explosion() -> None:
    """log sigma0 as t^3: its rate of late is never far above that of shortly before."""
    for seed in range(3):
        run = sigmas("cubic", "walk", 0.01, seed)
        found = detect.explosions(run.steps, run.layers)
        assert [list(f.details["layers"]) for f in found] == [["a"]]
        assert found[0].step <= 0.7 * run.steps[-1]


def test_growth_twice_as_fast_as_usual_is_no_explosion() -> None:
    steps = np.arange(20, 4001, 20)
    for factor, expected in ((2.0, 0), (4.0, 1)):
        rate = np.where(steps > 2000, factor, 1.0) * 0.05
        logs = np.cumsum(rate) + 1e-4 * np.random.default_rng(0).standard_normal(200)
        assert len(detect.explosions(steps, {"a": np.exp(logs)})) == expected


def test_a_loss_that_nears_zero_and_jumps() -> None:
    """Claim 7; a single bad batch, and the noise of a hinge loss near 2, are none."""
    steps = np.arange(1, 2001)
    loss = noisy(2 * np.exp(-steps / 400.0), 0.3)
    loss[999] = 8.0
    assert detect.loss_jumps(steps, loss) == []
    loss[1500:] += 3.0
    (found,) = detect.loss_jumps(steps, loss)
    assert (found.kind, found.onset) == ("loss_jump", pytest.approx(1500, abs=3))
    assert found.step <= 1520
    assert found.details["after"] > 2.5 > 0.1 > found.details["before"]
    loss[1800:] = NAN
    assert detect.loss_jumps(steps, loss)[1:] == [detect.Finding("loss_jump", 1801, 1800, {"after": "nan"})]
    assert detect.loss_jumps(steps, 2 + 0.3 * np.random.default_rng(0).standard_normal(2000)) == []


@pytest.mark.parametrize(("before", "after"), [(0.1, 3.0), (0.5, 1.5), (2.0, 3.0), (1.0, 300.0)])
def test_a_step_of_the_loss_is_said_once_and_dated_to_it(before: float, after: float) -> None:
    """Also where the loss then moves about the level at which it is said."""
    steps = np.arange(1, 2001)
    loss = np.where(steps > 1200, after, before) + 0.3 * np.random.default_rng(1).standard_normal(2000)
    (found,) = detect.loss_jumps(steps, loss)
    assert found.onset == pytest.approx(1200, abs=2)
    assert found.step <= 1240
    assert found.details["before"] == pytest.approx(before, abs=0.1)
    assert found.details["after"] == pytest.approx(after, abs=0.3)


def test_a_jump_is_said_again_only_when_the_loss_has_come_down_or_stood_still() -> None:
    def jumps(*levels: tuple[int, float]) -> list[int]:
        loss = np.concatenate([np.full(n, level) for n, level in levels])
        return [f.onset for f in detect.loss_jumps(range(1, len(loss) + 1), loss)]

    assert jumps((400, 0.1), (60, 3.0), (60, 2.9), (60, 3.1), (400, 3.0)) == [400]
    assert jumps((400, 0.1), (60, 3.0), (60, 1.8), (60, 3.0)) == [400]  # not by half
    assert jumps((400, 0.1), (60, 3.0), (200, 0.2), (60, 3.0)) == [400, 660]
    assert jumps((400, 0.1), (40, 3.0), (100, 0.2), (60, 3.0)) == [400, 540]  # and has not stood still
    assert jumps((400, 0.1), (300, 3.0), (60, 9.0)) == [400, 700]
    assert jumps((400, 0.1), (10, 3.0), (400, 0.1)) == []  # a burst


@pytest.mark.parametrize("over", [300, 1000])
def test_a_climb_of_the_loss_is_said_once(over: int) -> None:
    for seed in range(3):
        steps, loss, onset = losses(f"0.5 to 10 over {over}", "gaussian", 0.3, seed)
        (found,) = detect.loss_jumps(steps, loss)
        assert abs(found.onset - onset) <= 0.1 * over
        assert onset < found.step <= onset + 0.3 * over


@pytest.mark.parametrize("kind", ["stationary", "decay to 0", "offset drift", "recovers"])
def test_losses_that_do_not_jump(kind: str) -> None:
    for seed in range(3):
        steps, loss, _ = losses(kind, "heavy", 0.3, seed)
        assert detect.loss_jumps(steps, loss) == []


def test_a_dead_discriminator() -> None:
    steps = np.arange(1, 501)
    random = np.random.default_rng(0)
    alive = {
        "loss": 1.5 + 0.3 * random.standard_normal(500),
        "accuracy_real": random.integers(10, 33, 500) / 32,
        "accuracy_fake": random.integers(10, 33, 500) / 32,
        "spread": random.uniform(0.1, 2, 500),
    }
    assert detect.dead_discriminator(steps, alive) == []
    won = alive | {"loss": np.zeros(500), "accuracy_real": np.ones(500), "accuracy_fake": np.ones(500)}
    assert detect.dead_discriminator(steps, won) == []
    offset = alive | {"accuracy_real": np.ones(500), "accuracy_fake": np.zeros(500)}
    assert detect.dead_discriminator(steps, offset) == []
    for sign, dead in {
        "output constant": {"spread": 1e-4},
        "loss constant": {"loss": 2.0},
        "accuracies frozen": {"accuracy_real": 0.1, "accuracy_fake": 0.9},
    }.items():
        series = alive | {name: np.where(steps > 300, value, alive[name]) for name, value in dead.items()}
        (found,) = detect.dead_discriminator(steps, series)
        assert (found.kind, found.onset, found.step) == ("dead_discriminator", 300, 400)
        assert found.details["signs"] == [sign]
    assert detect.dead_discriminator(steps, {name: np.full(500, NAN) for name in alive}) == []


def monitored(run: Path, start: int, stop: int, checkpoint: int, sigmas: np.ndarray, losses: np.ndarray) -> None:
    """A bare loop whose one weight has the given sigma0, with a checkpoint every so many steps."""
    net = nn.Linear(3, 2, bias=False)
    monitor = spectra.Monitor({"D": net}, run, start_step=start, every=10, burst=7, probes=["singular_values"])
    for step in range(start + 1, stop + 1):
        with torch.no_grad():
            net.weight.copy_(sigmas[step] * torch.eye(3)[:2])
        values = {"loss/D_real": losses[step] / 2, "loss/D_fake": losses[step] / 2}
        monitor.after_step(step, values)
        if step % checkpoint == 0:
            monitor.on_checkpoint(step)
    monitor.close()


def listed(run: Path) -> list[dict]:
    """Events without their times, those of a future that was lived again left out."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [{n: v for n, v in e.items() if n != "time"} for e in events if not e.get("superseded")]


def test_a_monitor_tells_online_what_detect_tells_later_also_across_a_resume(tmp_path: Path, capsys) -> None:  # noqa: ANN001
    """Resumed in the middle of a spike's decay and of an explosion: events and measured steps as in one piece."""
    steps = np.arange(0, 801)
    sigmas = sigma(steps.astype(float)) * np.exp(np.where(steps >= 400, 0.5 * 0.5 ** ((steps - 400) / 40), 0.0))
    sigmas *= np.exp(np.where(steps > 650, 0.01 * (steps - 650), 0.0))
    losses = noisy(np.full(801, 0.5), 0.1)
    losses[700:] = 4.0
    monitored(tmp_path / "whole", 0, 800, 100, sigmas, losses)
    for at in (430, 700):
        run = tmp_path / f"parts-{at}"
        monitored(run, 0, at + 5, 100, sigmas, losses)
        monitored(run, at, 800, 100, sigmas, losses)
        assert listed(run) == listed(tmp_path / "whole")
        one, other = (spectra.load(r)["spectra"][["step", "sigma0"]] for r in (tmp_path / "whole", run))
        assert one.equals(other)
    events = listed(tmp_path / "whole")
    assert [(e["event"], e.get("cause")) for e in events] == [
        ("spike", None), ("alarm", "explosion"), ("alarm", "loss_jump"),
    ]  # fmt: skip
    assert events[0]["network"] == "D"
    assert events[0]["height"] == pytest.approx(np.exp(0.5), rel=0.05)
    burst = range(events[1]["step"] + 1, events[1]["step"] + 8)
    assert set(burst) <= set(one.step)
    assert not set(range(events[0]["step"] + 1, events[0]["step"] + 8)) <= set(one.step)  # a spike begins none
    found = detect_run(tmp_path / "whole")
    assert {(f.kind, f.onset, f.step) for f in found} == {
        (e.get("cause", e["event"]), e["onset"], e["step"]) for e in events
    }
    with open(tmp_path / "whole" / "events.jsonl", "a") as file:
        for step, spread, fid in zip(range(20, 801, 20), [0.8] * 30 + [0.05] * 10, [50.0] * 40, strict=True):
            scores = {"spread_share": spread, "fid": fid}
            file.write(json.dumps({"event": "evaluation", "step": step, "weights": "raw", "scores": scores}) + "\n")
    assert main(["detect", str(tmp_path / "whole"), "--json"]) == 0
    rows = {row["kind"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["collapse"]["onset"] == pytest.approx(600, abs=40)
    assert rows["spike"]["lead"] == rows["collapse"]["onset"] - rows["spike"]["step"] > 0
    assert rows["collapse"]["lead"] is None
    assert main(["detect", str(tmp_path / "whole")]) == 0
    table = capsys.readouterr().out
    assert "explosion" in table
    assert "modes_lost" in table
    assert main(["detect", str(tmp_path / "nowhere")]) == 2


def test_a_monitor_without_detectors_and_a_misspelt_one(tmp_path: Path) -> None:
    monitor = spectra.Monitor({}, tmp_path, detectors=[])
    for step in range(1, 200):
        monitor.after_step(step, {"loss/D_real": NAN, "loss/D_fake": 1.0})
    monitor.close()
    assert not (tmp_path / "events.jsonl").exists()
    with pytest.raises(ValueError, match="did you mean 'spikes'"):
        spectra.Monitor({}, tmp_path / "other", detectors=["spike"])
