"""A latent distribution from outside: one function and one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import TINY

from biggan.cli.train import train_main
from biggan.config import LatentConfig
from biggan.objective import LATENTS
from biggan.objective.latents import fixed, sample_latents


@fixed
def laplace(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """The Laplace distribution."""
    return random.laplace(size=(count, dim)).astype(np.float32)


def test_it_trains_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(LATENTS, "laplace", laplace)
    assert (
        train_main(["--latents.distribution=laplace", "--steps=1", "--quiet", "--out", str(tmp_path / "run"), *TINY])
        == 0
    )
    drawn = sample_latents(LatentConfig("laplace"), np.random.default_rng(0), 20000, 2)
    assert float(drawn.square().mean()) == pytest.approx(2.0, rel=0.05)
    assert train_main(["--latents.distribution=laplac"]) == 2
    assert "did you mean 'laplace'" in " ".join(capsys.readouterr().err.split())
