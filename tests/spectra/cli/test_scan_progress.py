"""What `spectra scan` says while it computes: the cost of operators before, and progress without a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from spectra.cli.commands import main
from spectra.networks.checkpoint_files import read_weights
from spectra.networks.convolutions import Convolution, check_size, output_size, stored_operator


@pytest.fixture
def convolutions(tmp_path: Path) -> Path:
    state = {
        "big.weight": torch.randn(64, 64, 3, 3),
        "small.weight": torch.randn(2, 3, 1, 1),
        "fc.weight": torch.eye(2),
    }
    torch.save(state, tmp_path / "c.pt")
    return tmp_path / "c.pt"


def test_the_cost_of_operators_is_said_where_it_is_much(convolutions: Path) -> None:
    weights = read_weights(convolutions).weights
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        words = check_size(Convolution((32, 32)), weights)
        assert words is not None
        assert "2 convolutions as linear maps at 32x32, the largest 65536 x 65536: about" in words
        seconds = float(words.split("about ")[1].split()[0])
        assert 10 < seconds < 60, "measured: 20 s on one thread, for all 64 blocks"
        assert check_size(Convolution((4, 4)), weights) is None
        assert "minutes" in str(check_size(Convolution((128, 128)), weights))
    finally:
        torch.set_num_threads(before)


def test_the_cost_is_said_before_anything_is_computed(
    convolutions: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []

    def stop(*arguments: object) -> None:
        said.append(capsys.readouterr().err)
        raise KeyboardInterrupt

    monkeypatch.setattr("spectra.networks.scan.spectrum_of", stop)
    assert main(["scan", str(convolutions), "--operator", "128x128", "--json"]) == 130
    assert said[0].startswith("spectra: 2 convolutions as linear maps at 128x128")


def test_a_size_that_one_convolution_does_not_take_costs_no_other_row(tmp_path: Path) -> None:
    from spectra.networks.scan import scan

    layer = nn.Conv2d(3, 4, 1)
    torch.save({"large.weight": torch.ones(2, 3, 7, 7), "small.weight": layer.weight.detach()}, tmp_path / "c.pt")
    large, small = scan(tmp_path / "c.pt", operator=Convolution((4, 4), padding=0))[0]
    assert large.sigma
    assert large.operator_sigma is None
    assert "does not take inputs of 4x4" in str(large.as_dict()["operator_reason"])
    truth = torch.linalg.svdvals(layer.weight.detach().flatten(1).double())
    assert small.operator_sigma is not None
    assert small.operator_sigma[0] == pytest.approx(float(truth[0]), rel=1e-5)


def test_one_failure_is_a_row(convolutions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectra.networks import scan as module

    real, calls = module.top_singular_values, []

    def fails_once(matrix: torch.Tensor, *options: object) -> object:
        calls.append(matrix)
        if tuple(matrix.shape) == (64, 576):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nmore")
        return real(matrix, *options)

    monkeypatch.setattr(module, "top_singular_values", fails_once)
    big, small, fc = module.scan(convolutions)[0]
    assert big.reason == "DefaultCPUAllocator: can't allocate memory"
    assert (big.sigma, big.shape) == ((), (64, 576))
    assert small.reason is None
    assert fc.sigma == pytest.approx((1, 1))


def test_progress_without_a_terminal_is_a_line_now_and_then(
    convolutions: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["scan", str(convolutions)]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("spectra.cli.scan.PROGRESS_EVERY", 0.0)
    assert main(["scan", str(convolutions)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"spectra: {i} of 3 weights done, next {name}" for i, name in enumerate(("big", "small", "fc"))]


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 0}, {"dilation": 3}, {"padding": 4, "stride": 3}])
def test_the_size_of_outputs_is_torchs(options: dict[str, int], mode: str) -> None:
    convolution = Convolution((5, 9), padding_mode=mode, **options)
    for kernel in ((1, 1), (3, 3), (2, 4), (5, 3), (7, 1)):
        try:
            expected = stored_operator(torch.ones(2, 3, *kernel), convolution).out_shape[1:]
        except ValueError:
            expected = ()
        assert output_size(kernel, convolution) == expected, kernel
