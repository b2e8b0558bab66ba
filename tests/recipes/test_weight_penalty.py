"""A penalty on weights from outside: one function and one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recorded import recorded
from tiny import TINY
from torch import Tensor, nn

from biggan.cli.options import parse
from biggan.cli.train import train_main
from biggan.config import differences, from_dict
from biggan.objective import WEIGHT_PENALTIES
from biggan.objective.weight_penalties import penalized_matrices, penalties
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from biggan.training.state import TrainingState


def l1(network: nn.Module) -> Tensor:
    """The sum of |W| over all weight matrices."""
    return torch.stack([matrix.abs().sum() for matrix in penalized_matrices(network)]).sum()


@pytest.fixture(autouse=True)
def _l1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WEIGHT_PENALTIES, "l1", l1)


def test_it_is_trained_with_recorded_and_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--regularizers.weight_penalties_D={l1: 1e-3}", "--regularizers.l2_D=1e-4", "--quiet", *TINY]
    assert train_main([*options, "--steps=2", "--checkpoint.every=1", "--out", str(run)]) == 0
    config = read_checkpoint(checkpoint_paths(run)[-1]).config
    assert config.regularizers.weight_penalties_D == {"l1": 1e-3}
    row = recorded(run).iloc[0]
    assert row["penalty/D_l1"] == pytest.approx(1e-3 * float(l1(TrainingState(config).D).detach()), rel=1e-5)
    assert row["penalty/D_l2"] > 0
    assert "penalty/G_l1" not in row
    assert train_main(["--resume", str(run), "--steps=3", "--quiet"]) == 0


def test_its_gradient_is_part_of_the_update(tmp_path: Path) -> None:
    states = []
    for strength in ("0", "1e-2"):
        run = tmp_path / strength
        option = f"--regularizers.weight_penalties_D={{l1: {strength}}}"
        assert train_main([option, "--steps=1", "--quiet", "--out", str(run), *TINY]) == 0
        states.append(read_checkpoint(checkpoint_paths(run)[-1]).tensors["optim_D.linear.weight.exp_avg_sq"])
    assert not torch.equal(*states)


def test_another_strength_is_a_difference_in_the_numbers() -> None:
    one, other = (from_dict({"regularizers": {"weight_penalties_G": values}}) for values in ({}, {"l1": 1.0}))
    assert differences(one, other, numbers_only=True) == {"regularizers.weight_penalties_G": ({}, {"l1": 1.0})}


def test_an_option_and_a_file_set_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("regularizers: {weight_penalties_G: {l1: 1e-3, orthogonal_full: 2}}\n")
    line = parse(["--config", str(path), "--regularizers.weight_penalties_D.l1=1e-4"])
    assert line.config().regularizers.weight_penalties_G == {"l1": 1e-3, "orthogonal_full": 2.0}
    assert line.config().regularizers.weight_penalties_D == {"l1": 1e-4}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{l11: 1}", "unknown regularizers.weight_penalties_G 'l11'; did you mean 'l1'?"),
        ("{l2: 1}", "weight_penalties_G names l2, which has a field of its own: use l2_G"),
        ("5", "regularizers.weight_penalties_G is '5', expected names with numbers such as {NAME: 1e-4}"),
        ("{l1: -1}", "regularizers.weight_penalties_G is -1.0, expected at least 0"),
    ],
)
def test_a_wrong_one_is_refused(value: str, words: str, capsys: pytest.CaptureFixture) -> None:
    assert train_main([f"--regularizers.weight_penalties_G={value}"]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_every_entry_is_there() -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    assert all(WEIGHT_PENALTIES[name](network).ndim == 0 for name in WEIGHT_PENALTIES)
    config = from_dict({"regularizers": {"weight_penalties_G": {"l1": 0.0}}}).regularizers
    assert penalties(network, "G", config) == {}
