"""A monitor that certifies now and then and follows in between: what its rows say, and what is right about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import spectra
from spectra.record.frames import load


def train(run: Path, steps: int, every: int = 1, **settings: object) -> tuple[pd.DataFrame, torch.nn.Module]:
    """A small network under Adam, watched."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Tanh(), torch.nn.Linear(30, 4))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    x, y = torch.randn(64, 20), torch.randn(64, 4)
    with spectra.watch(net, run, every=every, **settings) as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(net(x), y)
            loss.backward()
            optimizer.step()
            monitor.step(loss=loss)
    return load(run)["spectra"], net


def test_rows_say_which_guarantee_they_have(tmp_path: Path) -> None:
    tracked, net = train(tmp_path / "tracked", 25, guarantee="tracked", certify_every=10)
    certified, same = train(tmp_path / "certified", 25)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), same.parameters(), strict=True))
    steps = tracked.groupby("guarantee", observed=True).step.unique()
    assert sorted(steps["certified"]) == [1, 10, 20]
    assert sorted(steps["tracked"]) == [step for step in range(2, 26) if step not in (10, 20)]
    assert "none" not in steps
    assert (tracked.converged == (tracked.guarantee == "certified")).all()
    assert (certified.guarantee == "certified").all()
    both = tracked.merge(certified, on=["step", "layer"], suffixes=("", "_true"))
    exact = both[both.guarantee == "certified"]
    np.testing.assert_array_equal(exact.sigma0, exact.sigma0_true)  # a function of the weights and the step alone
    for i in range(3):
        np.testing.assert_allclose(both[f"sigma{i}"], both[f"sigma{i}_true"], atol=2e-4 * both.sigma0_true.max())
    np.testing.assert_allclose(both.sigma0, both.sigma0_true, rtol=1e-5)


def test_a_record_without_it_says_none_or_certified(tmp_path: Path) -> None:
    frame, _ = train(tmp_path / "run", 2, probes=["frobenius"])
    assert (frame.guarantee == "none").all()


def measured(run: Path, weights: list[torch.Tensor | torch.nn.Linear]) -> pd.DataFrame:
    """A layer that has one weight after the other, or is another layer, tracked at every step."""
    net = torch.nn.Sequential(torch.nn.Linear(30, 40, bias=False))
    monitor = spectra.Monitor(net, run, every=1, guarantee="tracked", probes=["singular_values"])
    for step, weight in enumerate(weights, start=1):
        if isinstance(weight, torch.nn.Linear):
            net[0] = weight
        else:
            net[0].weight.data.copy_(weight)
        monitor.after_step(step)
    monitor.close()
    return load(run)["spectra"]


def test_after_nan_the_first_finite_weight_is_certified(tmp_path: Path) -> None:
    weight = torch.randn(40, 30)
    rows = measured(tmp_path / "run", [weight, weight, torch.full((40, 30), float("nan")), weight, weight])
    assert rows.guarantee.tolist() == ["certified", "tracked", "tracked", "certified", "tracked"]
    truth = float(torch.linalg.svdvals(weight.double())[0])
    np.testing.assert_allclose(rows.sigma0, [truth, truth, np.nan, truth, truth], rtol=1e-6)


def test_another_layer_of_the_same_name_and_shape_is_certified(tmp_path: Path) -> None:
    first, other = torch.randn(40, 30), torch.nn.Linear(30, 40, bias=False)
    rows = measured(tmp_path / "run", [first, first, other, other])
    assert rows.guarantee.tolist() == ["certified", "tracked", "certified", "tracked"]
    truth = float(torch.linalg.svdvals(other.weight.detach().double())[0])
    np.testing.assert_allclose(rows.sigma0[2:], [truth, truth], rtol=1e-6)


def test_going_on_keeps_the_directions(tmp_path: Path) -> None:
    """The directions at the end of one monitor are where the next, at that step, goes on from, with the same bits."""
    torch.manual_seed(0)
    net = torch.nn.Linear(30, 40)
    weights = [net.weight.detach() + 1e-3 * torch.randn(40, 30) for _ in range(12)]

    def measure(run: Path, sessions: list[range]) -> np.ndarray:
        for steps in sessions:
            monitor = spectra.Monitor(
                net, run, start_step=steps[0] - 1, every=1, guarantee="tracked", probes=["singular_values"]
            )
            for step in steps:
                net.weight.data.copy_(weights[step - 1])
                monitor.after_step(step)
                monitor.on_checkpoint(step)
            monitor.close()
        return load(run)["spectra"][["sigma0", "sigma1", "sigma2", "residual"]].to_numpy()

    whole = measure(tmp_path / "whole", [range(1, 13)])
    assert whole.tobytes() == measure(tmp_path / "parts", [range(1, 5), range(5, 8), range(8, 13)]).tobytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"guarantee": "track"}, "did you mean 'tracked'"), ({"certify_every": 0}, "at least 1")],
)
def test_bad_settings(settings: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        spectra.Monitor(torch.nn.Linear(3, 4), tmp_path / "run", **settings)
