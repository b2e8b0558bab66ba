"""The benchmark runs, and its errors are within the tolerance. Its seconds are not tested."""

from __future__ import annotations

import pytest
import torch

from spectra.bench import estimators as bench


@pytest.mark.parametrize("kind", ["spiked", pytest.param("slow", marks=pytest.mark.slow)])
def test_a_run_on_a_few_shapes(kind: str, capsys: pytest.CaptureFixture) -> None:
    threads = torch.get_num_threads()
    shapes = [(64, 576), (128, 1152), (3, 40), (1, 128), (200, 64), (128, 64)]
    lines = bench.run_comparison(shapes, [kind], 1e-5, "cpu")
    out = capsys.readouterr().out
    assert torch.get_num_threads() == threads
    assert {line.label for line in lines} >= {"exact", "auto cold", "auto warm", "tracked", "svds cold", "svds with v0"}
    for line in lines:
        assert line.worst_error <= 1e-5 or line.label.startswith("svds") or line.label == "tracked", line
        assert "unconverged" not in line.unconverged, line
        assert line.seconds > 0
    for text in (
        "the floor",
        "extrapolated",
        "auto warm, certified: ",
        "goal 3" if kind == "spiked" else "goal 1",
        "2 readings",
    ):
        assert text in out


def test_made_weights_have_the_spectra_they_claim() -> None:
    generator = torch.Generator().manual_seed(0)
    bases = [bench.random_orthogonal(*shape, generator) for shape in [(40, 200), (200, 40), (1, 30)]]
    for weight in bench.make_weights("orthogonal", bases, generator):
        assert torch.allclose(torch.linalg.svdvals(weight), torch.ones(min(weight.shape)), atol=1e-5)
    halved = bench.make_weights("pruned", bases[:1], generator)[0]
    assert torch.linalg.svdvals(halved).round().tolist() == [1.0] * 20 + [0.0] * 20
    gaussian = torch.linalg.svdvals(bench.make_weights("gaussian", bases[:1], generator)[0])
    assert 0.85 < float(gaussian[0]) < 1.1
    for weight in bench.make_weights("slow", bases, generator):
        wanted = torch.arange(1, min(weight.shape) + 1, dtype=torch.float32) ** -0.1
        assert torch.allclose(torch.linalg.svdvals(weight), wanted, atol=1e-5)
    spiked = torch.linalg.svdvals(bench.make_weights("spiked", bases, generator)[0])
    assert 2.9 < float(spiked[0]) < 3.5
    assert float(spiked[3]) < 1.1


def test_bad_options(capsys: pytest.CaptureFixture) -> None:
    for arguments in (["12"], ["0x4"], *([["--device", "cuda"]] * (not torch.cuda.is_available()))):
        with pytest.raises(SystemExit) as error:
            bench.main(arguments)
        assert error.value.code == 2
    assert "expected ROWSxCOLUMNS" in capsys.readouterr().err


def test_one_small_shape_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["40x60", "--kinds", "spiked"]) == 0
    assert "40 x 60" in capsys.readouterr().out
