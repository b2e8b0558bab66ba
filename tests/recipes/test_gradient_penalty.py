"""A penalty on D's gradient from outside: one function and one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded import recorded
from tiny import TINY
from torch import Tensor, nn

from biggan.cli.train import train_main
from biggan.objective import GRADIENT_PENALTIES
from biggan.objective.gradient_penalties import Batch, squared_gradient_norms


def r2(D: nn.Module, batch: Batch) -> Tensor:
    """1/2 E|grad D(x)|^2 on G's images (Mescheder et al., 2018)."""
    assert batch.mix is not None  # a share for each image, for penalties between images
    return squared_gradient_norms(D, batch.fake, batch.fake_labels, batch.mask_fake).mean() / 2


def test_it_trains_is_recorded_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(GRADIENT_PENALTIES, "r2", r2)
    run = tmp_path / "run"
    options = ["--regularizers.gradient_penalties={r2: 3}", "--regularizers.r1=1", "--train.accumulate=2", *TINY]
    assert train_main([*options, "--steps=2", "--quiet", "--out", str(run)]) == 0
    frame = recorded(run)
    assert (frame["penalty/D_r2"] > 0).all()
    assert (frame["penalty/D_r1"] > 0).all()
    assert train_main(["--regularizers.gradient_penalties={r3: 3}"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "unknown regularizers.gradient_penalties 'r3'" in error
    assert "Known: r1, gradient, r2." in error
    assert train_main(["--regularizers.gradient_penalties={gradient: 3}"]) == 2
    assert "use gradient_penalty" in " ".join(capsys.readouterr().err.split())
