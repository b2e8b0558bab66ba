"""What goes wrong with any loss: jumps, divergence and lasting NaN, whatever its name, scale and sign."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from series import BAD_LOSSES, CALM_LOSSES, any_loss
from torch import nn

import spectra
from spectra import detect
from spectra.cli.commands import main
from spectra.detect.losses import TrainingLosses

NAN = math.nan


def told(steps: np.ndarray, loss: np.ndarray) -> list[tuple[str, int, int]]:
    return [(f.kind, f.onset, f.step) for f in detect.loss_troubles(steps, loss)]


@pytest.mark.parametrize("kind", [kind for kind in CALM_LOSSES if kind not in ("wanders", "bursts")])
def test_a_loss_that_goes_well_is_no_finding(kind: str) -> None:
    assert told(*any_loss(kind, "heavy", 0.3, 0)[:2]) == []


@pytest.mark.parametrize(("kind", "worst"), list(zip(BAD_LOSSES, ["loss_jump"] * 3 + ["divergence"] * 2, strict=True)))
def test_a_loss_that_goes_wrong_is_told_and_dated(kind: str, worst: str) -> None:
    steps, loss, onset = any_loss(kind, "gaussian", 0.1, 1)
    found = told(steps, loss)
    assert found[-1][0] == worst
    assert all(onset < step <= onset + 300 for _, _, step in found)
    assert found[0][1] == pytest.approx(onset, abs=60)
    assert len(found) <= 2


@pytest.mark.parametrize("unit", [2.0**-14, 2.0**14])
def test_the_unit_of_a_loss_does_not_matter(unit: float) -> None:
    """Not to a bit, where the unit is a power of 2."""
    for kind in ("jump", "blows up", "wanders"):
        steps, loss, _ = any_loss(kind, "gaussian", 0.1, 1)
        assert told(steps, unit * loss) == told(steps, loss)


def test_before_and_after_are_the_medians() -> None:
    steps = np.arange(1, 1001) * 50
    loss = np.where(np.arange(1000) < 600, 1.0 + 0.01 * (-1.0) ** np.arange(1000), 4.0)
    found = detect.loss_troubles(steps, loss)
    assert [(f.kind, f.onset) for f in found] == [("loss_jump", 600 * 50)]
    assert found[0].step == 615 * 50  # fifteen of thirty values move their median
    assert found[0].details == {
        "before": pytest.approx(1.0, abs=0.011),
        "after": pytest.approx(2.5, abs=0.011),
    }  # halfway


def test_a_classifier_that_falls_back_to_guessing_diverges_once_and_again_after_it_recovered() -> None:
    guessing, learnt = math.log(10), 0.05
    noise = 0.02 * np.random.default_rng(0).standard_normal(2400)
    parts = [np.full(60, guessing), np.full(500, learnt), np.full(600, guessing), np.full(640, learnt)]
    loss = np.concatenate([*parts, np.full(600, guessing)]) + noise
    found = [(kind, onset) for kind, onset, _ in told(np.arange(1, 2401), loss) if kind == "divergence"]
    assert found == [("divergence", pytest.approx(560, abs=30)), ("divergence", pytest.approx(1800, abs=30))]


def test_a_slow_rise_is_no_divergence_and_the_same_rise_at_once_is_one() -> None:
    """A generator's loss against a discriminator that wins rises over thousands of steps."""
    fall = np.r_[np.full(60, 2.0), np.full(500, 0.3)]
    for length, kinds in ((4000, []), (400, ["divergence"])):
        loss = np.r_[fall, np.linspace(0.3, 3, length), np.full(300, 3.0)]
        loss = loss + 0.05 * np.random.default_rng(0).standard_normal(len(loss))
        assert [kind for kind, _, _ in told(np.arange(len(loss)), loss) if kind == "divergence"] == kinds


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
def test_a_loss_that_stays_not_finite_is_told_once_and_single_values_are_skipped(value: float) -> None:
    loss = np.ones(60)
    loss[[5, 7, 8]] = NAN  # as of steps that loss scaling left out
    loss[20:] = value
    assert detect.loss_troubles(np.arange(60), loss) == [
        detect.Finding("loss_not_finite", 29, 19, {"value": str(value), "values": 10})
    ]
    again = np.r_[loss, np.ones(3), loss[20:]]
    assert [f.onset for f in detect.loss_troubles(np.arange(len(again)), again)] == [19, 62]
    assert [f.onset for f in detect.loss_troubles(range(3, 20), [NAN] * 17)] == [3]  # from the beginning on


@pytest.mark.parametrize(
    ("name", "is_loss"),
    [
        ("loss", True), ("train_loss", True), ("loss_G", True), ("loss/D_real", True), ("val/loss", True),
        ("lossD", True), ("GLoss", True), ("Loss", True), ("LOSS", True), ("losses", True), ("eval loss", True),
        ("gloss", False), ("lossy", False), ("loss_scale", False), ("loss_weight", False), ("accuracy", False),
        ("sigma0/net.loss.head", False), ("gradient_norm/net.loss", False),
    ],
)  # fmt: skip
def test_losses_are_known_by_their_names(name: str, is_loss: bool) -> None:
    assert TrainingLosses().wants(name) is is_loss
    assert TrainingLosses("errD").wants(name) is False
    assert TrainingLosses("errD").wants("errD")


def record(run: Path, name: str, loss: np.ndarray, start: int = 0, stop: int | None = None, **settings: object) -> None:
    monitor = spectra.Monitor({}, run, start_step=start, **settings)
    for step in range(start + 1, (stop or len(loss)) + 1):
        monitor.after_step(step, {name: loss[step - 1], "accuracy": 0.5})
    monitor.close()


def alarms(run: Path) -> list[tuple]:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [
        (e["cause"], e["onset"], e["step"], e["loss"])
        for e in events
        if e["event"] == "alarm" and not e.get("superseded")
    ]


def test_a_monitor_tells_of_any_loss_what_detect_tells_later_also_across_a_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    _, loss, _ = any_loss("jump", "gaussian", 0.1, 1, last=1500)
    loss[1450:] = NAN
    whole, parts, other = tmp_path / "whole", tmp_path / "parts", tmp_path / "other"
    record(whole, "train_loss", loss)
    record(parts, "train_loss", loss, stop=1454)
    record(parts, "train_loss", loss, start=1440)
    record(other, "errD", loss, detectors=[TrainingLosses("errD")])
    found = alarms(whole)
    assert [(cause, name) for cause, _, _, name in found] == [
        ("loss_jump", "train_loss"),
        ("loss_not_finite", "train_loss"),
    ]
    assert alarms(parts) == found
    assert [row[:3] for row in alarms(other)] == [row[:3] for row in found]
    replayed = [(f.kind, f.onset, f.step, f.details["loss"]) for f in spectra.detect_run(whole)]
    assert replayed == found
    assert spectra.detect_run(other) == []
    assert main(["detect", str(other), "--loss", "errD", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["kind"], row["onset"], row["step"]) for row in rows] == [row[:3] for row in found]
    assert main(["detect", str(other), "--loss", "errG"]) == 2
    assert "did you mean 'errD'" in capsys.readouterr().err


def test_losses_that_another_detector_searches_are_left_to_it() -> None:
    loss = np.r_[np.full(500, 0.1), np.full(100, 5.0)]
    for names, count in ((["loss/D_real", "loss/D_fake", "loss/G"], 0), (["loss/G", "loss/D"], 2)):
        detector = TrainingLosses()
        found = [f for step, value in enumerate(loss, 1) for f in detector.update(step, dict.fromkeys(names, value))]
        assert len(found) == count


def test_a_monitor_of_a_network_measures_more_after_a_divergence(tmp_path: Path) -> None:
    loss = np.r_[np.full(60, 2.0), np.full(300, 0.1), np.full(60, 9.0)]
    monitor = spectra.Monitor({"net": nn.Linear(3, 2)}, tmp_path, every=100, burst=5, probes=["singular_values"])
    for step, value in enumerate(loss, 1):
        monitor.after_step(step, {"loss": value})
    monitor.close()
    (_, _, at, _) = alarms(tmp_path)[-1]
    assert set(range(at + 1, at + 6)) <= set(spectra.load(tmp_path)["spectra"].step)
