"""TF32: allowed where the configuration says so and nowhere else, and as it was afterwards. Switches, read on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tiny import TINY

import spectra
from biggan.cli.options import parse
from biggan.cli.train import train_main
from biggan.config.presets import preset_chain, preset_names, preset_text
from spectra.linalg.tf32 import is_allowed, tf32

NEWER = hasattr(torch.backends, "fp32_precision")
ALL, NONE = dict.fromkeys(("matmul", "conv", "rnn"), True), dict.fromkeys(("matmul", "conv", "rnn"), False)
DEFAULT = NONE | {"conv": True, "rnn": True}


@pytest.fixture(autouse=True)
def _as_torch_comes() -> Iterator[None]:
    with tf32(False):
        torch.backends.cudnn.allow_tf32 = True
        yield


def test_both_apis_say_what_was_set_and_all_is_as_it_was() -> None:
    assert is_allowed() == DEFAULT
    for allowed, words in ((True, ("tf32", "high")), (False, ("ieee", "highest"))):
        with tf32(allowed):
            assert is_allowed() == (ALL if allowed else NONE)
            assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is allowed
            assert torch.get_float32_matmul_precision() == words[1]  # what torch.compile reads, which must not raise
            if NEWER:
                assert torch.backends.cudnn.conv.fp32_precision == words[0]
            with tf32(not allowed):
                assert is_allowed() == (NONE if allowed else ALL)
            assert is_allowed() == (ALL if allowed else NONE)
        assert is_allowed() == DEFAULT


def test_whatever_a_user_had_set_comes_back() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        with tf32(False):
            assert torch.get_float32_matmul_precision() == "highest"
            assert is_allowed() == NONE
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    if NEWER:  # convolutions and recurrent layers apart, which only the newer switches can say
        torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.rnn.fp32_precision = "ieee", "tf32"
        before = is_allowed()
        for allowed in (True, False):
            with tf32(allowed):
                assert is_allowed() == (ALL if allowed else NONE)
            assert is_allowed() == before
    with pytest.raises(ZeroDivisionError), tf32(True):
        raise ZeroDivisionError
    assert not is_allowed()["matmul"]


@pytest.mark.parametrize("allowed", [False, True])
def test_updates_have_what_the_configuration_says_and_all_else_float32(
    allowed: bool, tiny: Callable, train: Callable, tmp_path: Path
) -> None:
    """Forwards in updates, observers between them (the monitor, scores), and a library's own loop afterwards."""
    seen: dict[str, list] = {"update": [], "observer": []}

    class Watch:
        def on_start(self, trainer: object) -> None:
            trainer.state.D.blocks[0].register_forward_pre_hook(lambda *_: seen["update"].append(is_allowed()))

        def after_step(self, step: int, stats: dict[str, float]) -> None:
            seen["observer"].append(is_allowed())

        def __getattr__(self, name: str) -> Callable:
            return lambda *_: None

    train(tiny(steps=2, speed={"tf32": allowed}), tmp_path / "run", Watch())
    assert seen["update"]
    assert all(one == (ALL if allowed else NONE) for one in seen["update"])
    assert seen["observer"] == [NONE, NONE]
    assert is_allowed() == DEFAULT


def test_estimates_of_singular_values_never_use_it() -> None:
    """Not in a loop of one's own that allows it, as the tolerance of 1e-5 would not hold."""
    seen = []

    class Operator:
        shape, dtype, device = (6, 5), torch.float32, torch.device("cpu")
        matrix = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            seen.append(is_allowed())
            return rows @ self.matrix.T

        def adjoint(self, rows: torch.Tensor) -> torch.Tensor:
            seen.append(is_allowed())
            return rows @ self.matrix

    with tf32(True):
        spectra.top_singular_values(Operator(), k=1)
        assert is_allowed() == ALL
    assert seen
    assert all(one == NONE for one in seen)


def test_a_resume_under_another_value_is_refused_and_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    assert train_main(["--out", str(run), "--steps=1", "--quiet", *TINY]) == 0
    resume = ["--resume", str(run), "--steps=2", "--quiet", "--speed.tf32=true"]
    assert train_main(resume) == 2
    assert "speed.tf32: False -> True" in " ".join(capsys.readouterr().err.split())
    assert train_main([*resume, "--allow-change"]) == 0


@pytest.mark.parametrize("name", preset_names())
def test_presets_for_a_gpu_say_what_they_choose(name: str) -> None:
    config = parse([name]).config()
    assert config.speed.tf32 is False
    texts = " ".join(map(preset_text, preset_chain(name)))
    assert ("tf32: false #" in texts) == (config.device == "auto")
