"""The preset that collapses by itself: what it must say itself, that its ring is long enough, and that it collapses."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest

from biggan.cli.options import parse
from biggan.cli.train import train_main
from biggan.config import fields
from biggan.config.presets import preset_chain, preset_text, read_yaml
from biggan.observers.collapse_of_run import collapse_of
from biggan.run.checkpoint import all_checkpoints
from biggan.run.directory import RunDirectory
from biggan.run.retention import ring_of
from interventions.branch.parent import find_parent
from interventions.study.rescue import plan_rescue

NAME = "digits-collapse"
SWITCHES = ("narrow_skips", "fused_resampling", "channels_last", "batched_power_iteration")
LATEST = 800
"""Steps from an onset to its alarm: the most that was seen in recorded runs."""


def test_it_inherits_nothing_that_decides_a_rounding() -> None:
    """A collapse depends on every bit, so a new default of `speed` must not reach it."""
    assert preset_chain(NAME) == [NAME]
    own = read_yaml(preset_text(NAME), NAME)
    assert "base" not in own
    speed = {name for name, _ in fields() if name.startswith("speed.")}
    assert {name for name in own if name.startswith("speed.")} == speed
    assert all(own[f"speed.{switch}"] is True for switch in SWITCHES)
    assert {"steps", "device", "threads", "train.batch", "train.d_steps", "optim.G.lr", "optim.D.lr"} <= set(own)


def test_its_ring_holds_a_state_from_before_the_onset_when_the_alarm_comes_late() -> None:
    config = parse([NAME]).config()
    every = config.checkpoint.ring_every
    assert every % config.eval.every == 0
    for onset in range(1000, config.steps - LATEST, every):
        alarm = onset + LATEST  # raised before the state of its step is saved
        ring = ring_of(range(every, alarm, every), config.checkpoint, well=onset)
        assert ring[0] <= 0.9 * onset, onset


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_it_collapses_after_a_healthy_phase_and_keeps_the_way_back(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Seed 5, stopped by its alarm: on the machine that the preset was made on at step 3400, with the onset at 2700.
    Other processors round otherwise, so the steps here are wide."""
    run = tmp_path / "run"
    line = [NAME, "--seed=5", "--train.on_alarm=stop", "--samples.every=0", "--tensorboard.every=0", "--quiet"]
    assert train_main([*line, "--out", str(run)]) == 1
    events = RunDirectory(run).events_that_hold()
    stopped = events[-1]
    assert (stopped["event"], stopped["reason"], stopped["cause"]) == ("stopped", "alarm", "collapse")
    found = collapse_of(events)
    assert found is not None
    onset = found.onset
    assert stopped["onset"] == onset
    assert 1800 <= onset <= 4500, "healthy for more than a third of the run"
    assert stopped["step"] - onset <= 1000
    scores = {e["step"]: e["scores"] for e in events if e["event"] == "evaluation" and e["weights"] == "raw"}
    healthy = [one for step, one in scores.items() if 800 <= step <= onset]
    assert median(one["fid"] for one in healthy) < 25
    assert median(one["spread_share"] for one in healthy) > 0.7
    assert scores[stopped["step"]]["fid"] > 2 * median(one["fid"] for one in healthy)
    (frozen,) = (run / "checkpoints").glob("frozen-*")
    steps = sorted(int(path.stem.removeprefix("step-")) for path in frozen.glob("step-*.safetensors"))
    assert steps[0] <= 0.9 * onset
    assert set(steps) <= set(all_checkpoints(run))
    assert 0 < find_parent(run, before_collapse=onset // 10).step <= 0.9 * onset
    assert 0.9 * onset < plan_rescue(run).begin < onset
    assert f"biggan-intervene rescue {run}" in capsys.readouterr().out
