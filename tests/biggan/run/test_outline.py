"""What is said when a run begins and ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import TINY

from biggan.cli.train import train_main


def test_the_beginning_says_what_is_trained_on_and_where_to_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "a run"
    options = ["--steps=3", "--samples.every=2", "--samples.early=[0,1,7]", "--samples.standing_passes=1"]
    assert train_main(["--out", str(run), *TINY, *options, "--data.train_per_class=20"]) == 0
    first, data, samples, *rest = capsys.readouterr().out.splitlines()
    assert first == f"training in {run} on cpu, 1 thread, up to step 3"
    assert data.split(maxsplit=1) == ["data", "digits: 200 images (395 more held out), 8x8, 10 classes"]
    assert samples.split(maxsplit=1) == ["samples", f"'{run}/samples': a grid at steps 0 and 1, then every 2 steps"]
    assert not any("TensorBoard" in line for line in rest)
    assert any(line.startswith("finished at step 3, after 0:") for line in rest)
    assert train_main(["--resume", str(run), "--steps=8"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  samples"))
    assert line.endswith("a grid at step 7, then every 2 steps")


def test_the_end_says_the_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the last evaluation, and at which step that was."""
    from biggan.run.directory import RunDirectory

    assert train_main(["--out", str(tmp_path / "run"), *TINY, "--steps=3", "--eval.every=2"]) == 0
    out = capsys.readouterr().out
    raw, average = (
        event["scores"]["fid"] for event in RunDirectory(tmp_path / "run").events_that_hold("evaluation", 2)
    )
    line = next(line for line in out.splitlines() if line.startswith("  FID "))
    assert line.split(maxsplit=1)[1] == (
        f"{raw:.1f} generator, {average:.1f} its average (EMA); at step 2, classifier features"
    )


def test_paths_in_the_current_directory_are_printed_as_relative_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run and of its branch; what run.json and config.yaml hold stays, and other paths stay whole."""
    from biggan.run.directory import RunDirectory
    from biggan.run.files import shown_path
    from interventions.cli.main import main

    monkeypatch.chdir(tmp_path)
    options = ["--steps=4", "--checkpoint.every=2", "--tensorboard.every=1"]
    assert train_main(["--out", str(tmp_path / "a run"), *TINY, *options]) == 0
    branch = ["--ckpt", str(tmp_path / "a run"), "--at", "2", "--lr=G=x2", "--steps=2"]
    assert main([*branch, "--dry-run"]) == 0
    assert main(branch) == 0
    said = capsys.readouterr().out
    assert str(tmp_path) not in said
    assert "training in a run on" in said
    assert "biggan-eval --ckpt 'a run/checkpoints/step-00000004.safetensors'" in said
    assert "from step 2 of a run/checkpoints/step-00000002.safetensors" in said
    (made,) = [path for path in tmp_path.iterdir() if path.name.startswith("a run-")]
    assert f"  run         {made.name}\n" in said
    assert RunDirectory(made).read_config().out == str(made)
    assert RunDirectory(made).facts()["parent"]["path"].startswith(str(tmp_path))
    assert shown_path("/elsewhere/run") == Path("/elsewhere/run")
    assert shown_path("../run") == Path("../run")
