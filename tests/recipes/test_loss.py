"""A loss from outside: one class and one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recorded import recorded
from tiny import TINY
from torch import Tensor

from biggan.cli.train import train_main
from biggan.config import LossConfig
from biggan.objective import LOSSES
from biggan.objective.losses import Loss


class LeastSquares(Loss):
    """Least squares (Mao et al., 2017): E (D(x) - 1)^2 + E D(G(z))^2; G's is E (D(G(z)) - 1)^2."""

    def __init__(self, config: LossConfig) -> None:
        self.target = config.margin

    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        return (real - self.target).square().mean(), fake.square().mean()

    def generator(self, fake: Tensor) -> Tensor:
        return (fake - self.target).square().mean()


def test_it_trains_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(LOSSES, "least_squares", LeastSquares)
    run = tmp_path / "run"
    assert train_main(["--loss.name=least_squares", "--steps=2", "--quiet", "--out", str(run), *TINY]) == 0
    row = recorded(run).iloc[0]
    logits = torch.tensor([row["D/logit_mean/real"], row["D/logit_std/real"]])
    assert row["loss/D_real"] == pytest.approx(float((logits[0] - 1) ** 2 + logits[1] ** 2), rel=1e-4)
    assert train_main(["--loss.name=least_square"]) == 2
    assert "did you mean 'least_squares'" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        train_main(["--help"])
    assert "hinge, non_saturating, wasserstein, least_squares" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", LOSSES)
def test_every_entry_is_there(name: str) -> None:
    assert isinstance(LOSSES[name](LossConfig()).gradient_penalty, float)
