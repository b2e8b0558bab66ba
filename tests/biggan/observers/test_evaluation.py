"""Evaluation while training: its events, the record, the best checkpoint, resuming, and the alarm."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tiny import TINY, assert_same_state

from biggan.cli.train import train_main
from biggan.observers import evaluation as observer
from biggan.observers.evaluation import Evaluation
from biggan.run.checkpoint import read_checkpoint
from biggan.run.directory import RunDirectory
from biggan.run.retention import CheckpointStore, _Best
from spectra.record.segments import read_record

OPTIONS = ["--quiet", "--eval.every=2", "--checkpoint.every=2", "--ema.start=1", *TINY]


def evaluations(run: Path) -> list[dict]:
    return [
        {name: value for name, value in event.items() if name != "time"}
        for event in RunDirectory(run).events()
        if event["event"] == "evaluation" and not event.get("superseded")
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("evaluated") / "whole"
    assert train_main(["--out", str(run), "--steps=6", *OPTIONS]) == 0
    return run


def test_each_evaluation_is_an_event_with_its_settings_and_in_the_record(whole: Path) -> None:
    found = evaluations(whole)
    assert [(e["step"], e["weights"]) for e in found] == [(s, w) for s in (2, 4, 6) for w in ("raw", "ema")]
    settings = found[0]["settings"]
    assert {"features", "digest", "reference", "samples", "truncation", "standing_passes", "weights"} <= set(settings)
    assert settings["samples"] >= 1000
    assert found[0]["scores"] != found[1]["scores"]
    record = read_record(whole)
    for event in found:
        for name, value in event["scores"].items():
            rows = record[(record.name == f"eval/{event['weights']}/{name}") & (record.step == event["step"])]
            assert rows.value.tolist() == [value]


def test_a_resumed_run_has_the_same_evaluations_and_best(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "resumed"
    assert train_main(["--out", str(run), "--steps=3", *OPTIONS]) == 0
    (run / "checkpoints" / "step-00000003.safetensors").unlink()
    assert train_main(["--resume", str(run), "--steps=6", "--quiet"]) == 0
    assert evaluations(run) == evaluations(whole)
    best = [read_checkpoint(path / "checkpoints" / "best.safetensors") for path in (run, whole)]
    assert best[0].step == best[1].step
    assert_same_state(best[0].tensors, best[1].tensors)
    one, other = (read_record(path).query("name.str.startswith('eval')") for path in (run, whole))
    assert one.values.tolist() == other.values.tolist()


def test_the_best_is_the_state_with_the_lowest_fid_of_averaged_weights(whole: Path) -> None:
    fids = {e["step"]: e["scores"]["fid"] for e in evaluations(whole) if e["weights"] == "ema"}
    assert read_checkpoint(whole / "checkpoints" / "best.safetensors").step == min(fids, key=fids.__getitem__)


def scripted(monkeypatch: pytest.MonkeyPatch, *fids: float) -> None:
    """Let the evaluations find these FIDs, one after the other, for raw and averaged weights alike."""
    values = iter([fid for fid in fids for _ in range(2)])

    def scores(self, *arguments) -> dict[str, float]:  # noqa: ANN001, ANN002
        return {"fid": next(values), "spread_share": 0.5}

    monkeypatch.setattr(observer.Evaluator, "scores", scores)


@pytest.mark.usefixtures("standing")
def test_a_best_that_lies_behind_the_step_resumed_from_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, 30, 20, 25, 22, float("nan"))
    run = tmp_path / "run"
    best = run / "checkpoints" / "best.safetensors"
    assert train_main(["--out", str(run), "--steps=6", *OPTIONS, "--checkpoint.keep=1", "--monitor=none"]) == 0
    assert read_checkpoint(best).step == 4
    assert not (run / "checkpoints" / "step-00000004.safetensors").exists()
    assert train_main(["--resume", str(run), "--steps=10", "--quiet"]) == 0
    assert read_checkpoint(best).step == 4
    assert evaluations(run)[-1]["scores"]["fid"] == "nan"
    json.loads((run / "events.jsonl").read_text().splitlines()[-1], parse_constant=pytest.fail)


def test_no_best_is_kept_where_it_is_not_wanted(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train_main(["--out", str(run), "--steps=2", *OPTIONS, "--checkpoint.best=false"]) == 0
    assert not (run / "checkpoints" / "best.safetensors").exists()


@pytest.mark.usefixtures("standing")
def test_a_collapse_and_its_recovery_are_told_and_each_collapse_freezes_a_state_from_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two falls, each said when a ring of two steps has left its onset behind; resumed within a fall and a recovery."""
    scripted(monkeypatch, *[20.0] * 5, *[500.0] * 2, *[20.0] * 3, *[500.0] * 4)
    run = tmp_path / "run"
    ring = ["--checkpoint.ring_every=1", "--checkpoint.ring_keep=2", "--checkpoint.every=0", "--checkpoint.keep=1"]
    for number, steps in enumerate((13, 17, 28)):
        begin = ["--resume", str(run), "--quiet"] if number else ["--out", str(run), *OPTIONS, *ring, "--monitor=none"]
        assert train_main([*begin, f"--steps={steps}"]) == 0
    events = RunDirectory(run).events()
    assert [(e["event"], e["step"], e["onset"]) for e in events if "onset" in e] == [
        ("collapse", 14, 10), ("alarm", 14, 10), ("recovered", 20, 16), ("collapse", 28, 20), ("alarm", 28, 20),
    ]  # fmt: skip
    well = [e.get("well_until") for e in events if e["event"] == "evaluation" and e["weights"] == "raw"]
    assert well == [2, 4, 6, 8, 10, 10, 10, 10, 10, 20, 20, 20, 20, 20]
    frozen = {
        folder.name: sorted(int(path.stem.removeprefix("step-")) for path in folder.iterdir())
        for folder in (run / "checkpoints").glob("frozen-*")
    }
    assert frozen == {"frozen-00000014": [10, 13], "frozen-00000028": [20, 27]}
    collapse, alarm = (next(e for e in events if e["event"] == kind) for kind in ("collapse", "alarm"))
    assert alarm["cause"] == "collapse"
    assert collapse["details"] == {
        "rule": "quality_lost", "fid": 500, "fid_median": 20, "best_fid_median": 20, "spread": 0.5, "best_spread": 0.5,
    }  # fmt: skip


def test_a_run_whose_weights_become_nan_is_evaluated_to_nan(tiny, train, tmp_path: Path) -> None:  # noqa: ANN001
    class Breaks(observer.Observer):
        def on_start(self, trainer) -> None:  # noqa: ANN001
            with torch.no_grad():
                trainer.state.G.linear.weight.fill_(torch.nan)

    config = tiny(steps=2, eval={"every": 2})
    train(config, tmp_path / "run", Breaks(), Evaluation(), CheckpointStore())
    assert {value for e in evaluations(tmp_path / "run") for value in e["scores"].values()} == {"nan"}


def test_as_few_samples_as_a_covariance_takes_are_evaluated_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The classifier has 64 features."""
    line = [*TINY, "--steps=2", "--eval.every=2"]
    assert train_main(["--out", str(tmp_path / "few"), *line, "--eval.samples=65"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "65 samples are few for 64 features. Few samples bias some scores (too high: fid; too low: is): even" in said
    assert "or give --eval.samples 640 or more" in said
    assert all(math.isfinite(e["scores"]["fid"]) for e in evaluations(tmp_path / "few"))
    assert train_main(["--out", str(tmp_path / "fewer"), *line, "--eval.samples=64"]) == 2
    refused = " ".join(capsys.readouterr().err.split())
    assert "eval.samples is 64, expected at least 65: the FID takes the covariance of 64 features" in refused


def test_nothing_is_loaded_where_no_evaluation_will_fall_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer.Evaluator, "of_run", lambda *a, **k: pytest.fail("not needed"))
    run = tmp_path / "run"
    assert train_main(["--out", str(run), "--steps=3", "--quiet", *TINY]) == 0


def test_the_best_is_chosen_among_evaluations_that_can_be_compared() -> None:
    def event(step: int, fid: float | None, weights: str = "ema", **settings: object) -> dict:
        return {"step": step, "weights": weights, "scores": {} if fid is None else {"fid": fid}, "settings": settings}

    best = _Best()
    found = []
    for one in (
        event(1, 5.0, samples=1000),
        event(2, 7.0, samples=1000),
        event(2, 1.0, "raw", samples=1000),
        event(3, math.nan, samples=1000),
        event(4, 6.0, samples=100),  # a branch that evaluates on fewer
        event(5, None, samples=100),
        event(6, 5.5, samples=100),
    ):
        best.consider(one)
        found.append(best.step)
    assert found == [1, 1, 1, 1, 4, 4, 6]
