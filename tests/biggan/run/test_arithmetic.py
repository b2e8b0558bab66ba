"""What `use_arithmetic` sets for a GPU; the switches exist without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from biggan.config import Config
from biggan.run.session import use_arithmetic

deterministic, cudnn = torch.utils.deterministic, torch.backends.cudnn


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    before = torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory, cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before[0])
    deterministic.fill_uninitialized_memory, cudnn.benchmark = before[1:]


@pytest.mark.parametrize("wanted", [True, False])
def test_a_gpu_repeats_bits_or_chooses_the_fastest_kernels(tiny: Callable[..., Config], wanted: bool) -> None:
    """And fills no memory that is written anyway."""
    deterministic.fill_uninitialized_memory = True
    use_arithmetic(tiny(device="cuda", deterministic=wanted))
    assert torch.are_deterministic_algorithms_enabled() is wanted
    assert cudnn.benchmark is not wanted
    assert deterministic.fill_uninitialized_memory is False
