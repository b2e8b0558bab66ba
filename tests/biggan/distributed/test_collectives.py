"""Several ranks against one process, over gloo: gradients, statistics, numbers, weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from steps import first_steps, normalized_with_derivatives, on_several
from tiny import TINY_CONFIG as TINY
from torch import Tensor

from biggan.distributed.ranks import BatchShard
from biggan.errors import UserError

ATTENTION = {"attention_G": [8], "attention_D": [4]}
EVERYTHING = {
    "model": {**TINY["model"], **ATTENTION, "norm_D": "conditional", "clamp_D": {"ratio": 1.05}},
    "train": {"batch": 14, "d_steps": 1, "accumulate": 2},  # 3 ranks: 3 + 2 + 2 images of each micro-batch
    "regularizers": {
        "r1": 1.0, "gradient_penalty": 3.0, "orthogonal_G": 1e-3, "l2_D": 1e-3, "embedding_decay": 1e-2,
        "sigma_G": {"strength": 1e-2, "ratio": 1.1}, "dropout_keep": 0.8,
    },
    "optim": {"G": {"lr": 1e-3, "clip_global": 1.0}, "D": {"lr": 1e-3, "clip_tensor": 0.5}},
}  # fmt: skip


def updater(dtype: torch.dtype, steps: int = 3, **changes: Any) -> dict[str, Any]:
    return {"values": {**TINY, **changes}, "dtype": dtype, "steps": steps}


BATCH = {"batch": 32, "d_steps": 2}
WHOLE_RUNS = {
    "float32": updater(torch.float32, train=BATCH),
    "float64": updater(torch.float64, train=BATCH, model={**TINY["model"], **ATTENTION}),
}
RUNS = WHOLE_RUNS | {
    "everything": updater(torch.float64, 2, **EVERYTHING),
    "frozen G": updater(torch.float64, 1, train={"batch": 8, "freeze": "G"}, regularizers={"r1": 1.0}),
    "frozen D": updater(torch.float64, 1, train={"batch": 8, "freeze": "D"}),
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def feeds_a_batchnorm(network: str, name: str) -> bool:
    """A convolution's bias in a block of G: each BatchNorm behind it takes it away, the one at the end for the skips.

    Its gradient is zero but for rounding, which Adam makes as large as any other.
    """
    return network == "G" and re.fullmatch(r"blocks\.\d+\.(conv\d|skip)\.bias", name) is not None


def worst(one: dict[str, Tensor], other: dict[str, Tensor], left_out: set[str]) -> tuple[float, str]:
    """The largest difference of a tensor, relative to its norm or to 1e-6 of the norm of all."""
    assert set(one) == set(other)
    whole = torch.stack([tensor.norm() for tensor in one.values()]).norm()
    apart = {
        name: ((tensor - other[name]).norm() / torch.maximum(tensor.norm(), 1e-6 * whole)).item()
        for name, tensor in one.items()
    }
    return max((error, name) for name, error in apart.items() if name not in left_out)


def compare_trainings(name: str, one: dict[str, Any], several: list[dict[str, Any]]) -> None:
    """Every gradient at each step from the same state, every number, and the weights at the end of plain trainings.

    (Attention hands a bias on, and BatchNorm in D has such biases too: what Adam made of their rounding shows there.)
    """
    tolerance = TOLERANCE[RUNS[name]["dtype"]]
    with_attention = "attention_G" in RUNS[name]["values"]["model"]
    norm_in_D = "norm_D" in RUNS[name]["values"]["model"]
    for step, gradients in enumerate(one["gradients"]):
        for (network, k), tensors in gradients.items():
            left_out = {n for n in tensors if feeds_a_batchnorm(network, n)}
            if network == "D" and norm_in_D:
                left_out = {n for n in tensors if n.endswith("conv1.bias")}
            error, where = worst(tensors, several[0]["gradients"][step][network, k], left_out)
            assert error < tolerance, f"{name}, step {step}, {network} {k}: {where} {error}"
            norm = torch.stack([tensor.norm() for tensor in tensors.values()]).norm()
            assert with_attention or all(tensors[n].norm() < 1e-5 * norm for n in left_out)
        for key, value in one["stats"][step].items():
            assert several[0]["stats"][step][key] == pytest.approx(value, rel=tolerance, abs=1e-7), (name, step, key)
    matrices = {n for n, t in one["end"].items() if t.ndim >= 2 and n.startswith(("G.", "D.", "G_ema."))}
    for n in matrices if name in WHOLE_RUNS else ():
        error, _ = worst({n: one["end"][n]}, {n: several[0]["end"][n]}, set())
        assert error < tolerance, f"{name}, at the end: {n} {error}"
    for other in several[1:]:
        assert all(torch.equal(tensor, other["end"][n]) for n, tensor in several[0]["end"].items()), name
        assert several[0]["stats"] == other["stats"]


def random_map(*shape: int, offset: float = 0.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).add(offset).to(dtype)


MAPS = {
    "map": (random_map(7, 3, 4, 4), random_map(3) + 2),
    "kernels": (random_map(7, 3, 4, 4), random_map(3) + 2),
    "kernels, channels last": (
        random_map(7, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        random_map(3) + 2,
    ),
    "far from zero": (random_map(7, 3, 4, 4, offset=1e3, dtype=torch.float32), random_map(3, dtype=torch.float32) + 2),
}


def compare_maps(name: str, parts: list[dict[str, Tensor]]) -> None:
    """BatchNorm across ranks against torch's on the whole batch in float64."""
    x, slope = MAPS[name]
    whole = normalized_with_derivatives(x.double(), slope.double())
    together = {key: torch.cat([part[key] for part in parts]) for key in ("out", "alone", "first", "second")}
    together["second_slope"] = torch.stack([part["second_slope"] for part in parts]).sum(dim=0)
    together |= {key: parts[0][key] for key in ("mean", "variance")}
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-3}[x.dtype]  # 1e3 in float32 is known to 6e-5
    for key, tensor in together.items():
        error = ((tensor.double() - whole[key]).norm() / whole[key].norm()).item()
        assert error < tolerance, (name, key, error)
    for part in parts[1:]:
        assert torch.equal(part["mean"], parts[0]["mean"])
        assert torch.equal(part["variance"], parts[0]["variance"])


@pytest.mark.parametrize(
    ("ranks", "runs"),
    [pytest.param(2, WHOLE_RUNS, id="2"), pytest.param(3, RUNS, id="3", marks=pytest.mark.slow)],
)
def test_ranks_agree_with_one_process(ranks: int, runs: dict[str, Any], tmp_path: Path) -> None:
    """2 x 16, and 11 + 11 + 10, against 32; every penalty under accumulation; a frozen network; BatchNorm alone."""
    one = {name: first_steps(**job) for name, job in runs.items()}
    jobs = {name: {**job, "starts": one[name]["starts"]} for name, job in runs.items()}
    found = on_several(ranks, {"runs": jobs, "maps": MAPS}, tmp_path)
    for name in runs:
        compare_trainings(name, one[name], [each[name] for each in found])
    for name in MAPS:
        compare_maps(name, [each[name] for each in found])


@pytest.mark.parametrize(("batch", "accumulate", "ranks"), [(32, 1, 3), (12, 2, 4), (24, 3, 2), (5, 1, 5), (8, 4, 1)])
def test_shares_are_the_batch_cut_by_micro_batches(batch: int, accumulate: int, ranks: int) -> None:
    shares = [BatchShard(batch, accumulate, of=(rank, ranks)) for rank in range(ranks)]
    assert sum(share.weight for share in shares) == pytest.approx(1, abs=1e-12)
    parts = [share.of(torch.arange(batch)).chunk(accumulate) for share in shares]
    for index, micro in enumerate(np.split(np.arange(batch), accumulate)):
        assert torch.cat([part[index] for part in parts]).tolist() == micro.tolist()
        sizes = [len(part[index]) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert [size / len(micro) for size in sizes] == [share.weight for share in shares]
    for share in shares:
        rows = share.rows_on(torch.device("cpu"))
        assert rows.tolist() == share.rows.tolist()
        assert rows is share.rows_on(torch.device("cpu"))  # on a GPU a copy waits for the device


def test_more_ranks_than_images_of_a_micro_batch_are_refused() -> None:
    with pytest.raises(UserError, match=r"5 processes are to share train\.batch 4"):
        BatchShard(4, of=(0, 5))
    with pytest.raises(UserError, match="cut into 2 micro-batches of 4"):
        BatchShard(8, 2, of=(0, 5))
