"""Detectors on series whose answer is known, online and whole alike, and quiet where nothing happened."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import spectra
from spectra import detect
from spectra.cli import main
from spectra.detect import Collapse
from spectra.detectors import detect_run

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


def test_collapse_online_is_collapse_on_the_whole_series_and_comes_once() -> None:
    spread, fid = spreads(), fids(100)
    spread[30:], fid[12], spread[15] = 0.05, NAN, math.inf
    detector = Collapse()
    online = [f for row in zip(STEPS, spread, fid, strict=True) if (f := detector.update(*row))]
    assert online == [detect.collapse(STEPS, spread, fid)]
    assert detect.collapse(STEPS, spread, fid, patience=8).step == online[0].step + 500
    json.dumps(online[0].details, allow_nan=False)
    with pytest.raises(TypeError, match="pateince"):
        Collapse(pateince=3)


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
        assert (found.kind, found.onset, found.step) == ("dead_discriminator", 301, 400)
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
