"""Training from Python: `biggan.train` with a preset or a configuration, and observers of one's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tiny import TINY, TINY_CONFIG, assert_same_state

import biggan
import spectra
from biggan.cli.train import train_main
from biggan.run.checkpoint import newest_checkpoint


class Losses(biggan.Observer):
    """Keeps D's loss of every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        self.seen.append(stats["loss/D_real"] + stats["loss/D_fake"])


SMALL = {"model": {"resolution": 8, "ch_G": 4, "ch_D": 4}, "train.batch": 8, "samples.every": 0, "tensorboard.every": 0}


def test_a_preset_trains_as_on_the_command_line_and_calls_observers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = Losses()
    run = biggan.train("digits", {**SMALL, "steps": 3, "out": str(tmp_path / "run")}, observers=[losses])
    assert (run.path, run.status, run.config.steps, run.state.step) == (tmp_path / "run", "finished", 3, 3)
    assert "next:" in capsys.readouterr().out
    scalars = spectra.load(run.path)["scalars"].pivot_table(index="step", columns="name", values="value", observed=True)
    assert losses.seen == pytest.approx((scalars["loss/D_real"] + scalars["loss/D_fake"]).tolist(), abs=0)
    assert train_main(["digits", "--out", str(tmp_path / "shell"), "--steps=3", "--quiet", *TINY]) == 0
    assert_same_state(run.state.tensors(), newest_checkpoint(tmp_path / "shell")[0].tensors)
    (started,) = [event for event in spectra.read_events(run.path).to_dict("records") if event["event"] == "started"]
    assert started["details"]["preset"] == "digits"


def test_a_configuration_trains_quietly_and_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = biggan.from_dict(TINY_CONFIG)
    run = biggan.train(config, {"steps": 2, "optim.G.lr": 1e-4}, quiet=True)
    assert capsys.readouterr().out == ""
    assert run.path == Path("runs/python")
    changed = biggan.differences(config, run.config)
    assert {name: new for name, (_, new) in changed.items()} == {"steps": 2, "optim.G.lr": 1e-4, "out": "runs/python"}
    assert train_main(["--resume", str(run.path), "--steps=3", "--quiet"]) == 0


@pytest.mark.parametrize(
    ("config", "overrides", "words"),
    [
        ("digit", {}, "did you mean 'digits'"),
        ("digits", {"optim.G.rl": 1.0}, "did you mean 'optim.G.lr'"),
        ("digits", {"optim": {"G": {"lr": -1.0}}}, "at least 0"),
        ("digits", {"steps": "many"}, "steps is 'many'"),
        ("digits", {"loss.name": "hing"}, "did you mean 'hinge'"),
        ("digits", {"model.resolution": 24}, "has tables for"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    config: str, overrides: dict[str, object], words: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(biggan.UserError, match=words):
        biggan.train(config, {"out": str(out), **overrides})
    assert not out.exists()


def test_code_for_features_is_imported_only_where_the_call_names_it(tmp_path: Path) -> None:
    """A configuration may come from a file."""
    named = {"eval": {"every": 1, "features": "own_features:Small"}}
    config = biggan.from_dict({**TINY_CONFIG, **named})
    with pytest.raises(biggan.UserError, match="names code"):
        biggan.train(config, {"out": str(tmp_path / "run")})


def test_an_error_of_an_observer_ends_the_training(tmp_path: Path) -> None:
    class Broken(biggan.Observer):
        def after_step(self, step: int, stats: Mapping[str, float]) -> None:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        biggan.train("digits", {**SMALL, "out": str(tmp_path / "run")}, observers=[Broken()], quiet=True)


def test_the_name_is_the_function_whatever_was_imported_before() -> None:
    """`python -m biggan.train` needs a module of the same name."""
    code = """
import biggan.train
from biggan import train
import biggan
assert biggan.train is train
assert train.__module__ == "biggan.run.python", train
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "biggan.train", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("biggan-train ")
