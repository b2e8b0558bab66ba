"""Detectors on series whose answer is known, online and whole alike, and quiet where nothing happened."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from series import losses, sigmas
from torch import nn

import spectra
from spectra import detect
from spectra.cli.commands import main
from spectra.detect.online import detect_run, left_out
from spectra.record.segments import RecordWriter

NAN = math.nan


def noisy(values: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    return values * np.exp(share * np.random.default_rng(seed).standard_normal(len(values)))


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


@pytest.mark.parametrize("heights", [(1.6, 3.0), (3.0, 1.6)])
def test_of_two_spikes_of_a_layer_within_one_finding_the_higher_one_is_told(heights: tuple[float, float]) -> None:
    """While another layer is still up."""
    layers = {"a": np.ones(120), "b": np.ones(120)}
    for begin, height in zip((60, 80), heights, strict=True):
        layers["a"][begin : begin + 9] = height ** np.array([1, 1, 1, 0.8, 0.6, 0.45, 0.3, 0.2, 0.1])
    layers["b"][58:110] = 2.0
    (found,) = detect.spikes(range(1, 121), layers)
    assert {name: spike["height"] for name, spike in found.details["layers"].items()} == pytest.approx({"a": 3, "b": 2})


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
    assert [event["event"] for event in listed(tmp_path)] == ["first_non_finite"]  # which no detector finds
    with pytest.raises(ValueError, match="did you mean 'spikes'"):
        spectra.Monitor({}, tmp_path / "other", detectors=["spike"])


def test_a_thinned_record_is_not_searched_for_what_needs_every_step(tmp_path: Path, capsys) -> None:  # noqa: ANN001
    """Thirty recorded steps are then not thirty steps: it says so, and looks for no jump."""
    losses = {step: 0.2 if step <= 400 else 3.0 for step in range(1, 601)}
    for name, kept in (("whole", lambda step: True), ("thin", lambda step: step <= 260 or step % 2 == 0)):
        writer = RecordWriter(tmp_path / name, 0, {})
        for step, loss in losses.items():
            if kept(step):
                writer.append(step, {"loss/D_real": loss / 2, "loss/D_fake": loss / 2})
        writer.close()
        assert main(["detect", str(tmp_path / name)]) == 0
    whole, thin = tmp_path / "whole", tmp_path / "thin"
    assert [f.kind for f in detect_run(whole)] == ["loss_jump"]
    assert detect_run(thin) == []
    assert ([d.kinds for d in left_out(whole)], [d.kinds for d in left_out(thin)]) == ([], [("loss_jump",)])
    assert capsys.readouterr().err.count("this record was thinned") == 1


def test_a_first_measurement_that_is_not_finite_is_an_explosion() -> None:
    (found,) = detect.explosions([5, 10], {"a": [NAN, NAN]})
    assert (found.step, found.onset, found.details["layers"]) == (5, 5, {"a": {"sigma0": "nan"}})


@pytest.mark.parametrize(("low", "high", "noise", "found"), [(10, 12.5, 0, 0), (0, 3.2, 1.0, 1), (1, 3.4, 0, 1)])
def test_a_climb_is_measured_against_the_level_and_the_noise(low: float, high: float, noise: float, found: int) -> None:
    """Of the level three tenths are needed, of the noise two and a half standard deviations, and always 2."""
    random = np.random.default_rng(0)
    loss = np.concatenate([np.full(600, low), np.linspace(low, high, 1000), np.full(300, high)])
    assert len(detect.loss_jumps(range(len(loss)), loss + noise * random.standard_normal(len(loss)))) == found
