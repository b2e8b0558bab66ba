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
