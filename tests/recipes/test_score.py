"""A score from outside: one function and one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from biggan.cli.evaluate import eval_main
from biggan.evaluation.features.registry import Embedded
from biggan.evaluation.reference import Reference
from biggan.evaluation.registry import SCORES, Score


def mean_distance(samples: Embedded, real: Reference) -> float:
    """The distance between the mean features of samples and of real images."""
    return float(torch.linalg.vector_norm(samples.features.mean(dim=0) - real.moments.total / real.moments.count))


def test_it_is_computed_stored_and_named(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(SCORES, "mean_distance", Score(mean_distance, better=-1))
    out = tmp_path / "scores"
    assert eval_main(["--ckpt", str(finished), "--samples=200", "--standing-passes=1", "--out", str(out)]) == 0
    assert "mean_distance" in capsys.readouterr().out
    (path,) = out.glob("*.json")
    rows = json.loads(path.read_text())["rows"]
    assert all(row["scores"]["mean_distance"] > 0 for row in rows if row["step"] is not None)
    with pytest.raises(SystemExit):
        eval_main(["--help"])
    assert "class_accuracy, mean_distance" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", SCORES)
def test_every_entry_is_there(name: str) -> None:
    assert isinstance(SCORES[name], Score)
