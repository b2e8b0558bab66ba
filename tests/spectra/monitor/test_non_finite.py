"""The first NaN or Inf of a run is one event, with what it was in and its step."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tiny import TINY
from torch import nn

import spectra
from biggan.cli.train import train_main
from spectra.monitor.non_finite import FirstNonFinite

NAN, INF = math.nan, math.inf


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def train(run: Path, spoil: object, *, every: int, stop: int = 6, start: int = 0, skips: bool = False) -> list[dict]:
    """The events of a bare loop in which `spoil(net, step)` may break a weight or return a factor of the loss."""
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    monitor = spectra.Monitor({"net": net}, run, every=every, start_step=start)
    for step in range(start + 1, stop + 1):
        monitor.before_update("net")
        with torch.no_grad():
            factor = spoil(net, step) or 1.0
        optimizer.zero_grad()
        loss = net(torch.ones(2, 4)).square().sum() * factor
        loss.backward()
        monitor.after_backward("net")
        if not (skips and any(not p.grad.isfinite().all() for p in net.parameters())):
            optimizer.step()
        monitor.after_step(step, {"lr": 1e-3, "loss": loss.item()})
    monitor.close()
    path = run / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == "first_non_finite"]


def told(events: list[dict]) -> list[tuple]:
    return [(e["step"], e["what"], e["name"], e["value"]) for e in events]


def weight_breaks(net: nn.Sequential, step: int) -> None:
    if step == 4:
        net[2].weight[1, 2] = NAN


def loss_breaks(net: nn.Sequential, step: int) -> float | None:
    return INF if step == 3 else None


def test_a_weight_that_was_broken_before_the_step_is_told_where_every_step_is_measured(tmp_path: Path) -> None:
    def broken_between(net: nn.Sequential, step: int) -> None:
        """After the step's copy was made: the weight breaks during step 4, and step 5 begins with it."""
        weight_breaks(net, step)

    events = train(tmp_path / "a", broken_between, every=1)
    assert told(events) == [(4, "scalar", "loss", "nan")]  # at step 4 the copy from before the step was sound
    look = FirstNonFinite(tmp_path / "none").look
    bad, good = torch.tensor([1.0, -INF]), torch.ones(2)
    first = look(4, {"loss": NAN}, {}, {"net.b": bad, "net.a": bad}, {"net.a": bad}, {"net.a": good, "net.b": bad})
    assert (first["what"], first["name"], first["value"]) == ("parameter", "net.b", "-inf")


@pytest.mark.parametrize("every", [1, 100])
def test_an_overflow_of_the_loss_is_told_once_with_the_counts_of_what_else_is_broken(
    tmp_path: Path, every: int
) -> None:
    events = train(tmp_path, loss_breaks, every=every)
    assert told(events) == [(3, "scalar", "loss", "inf")]
    assert events[0]["scalars"] == ["loss"]
    assert events[0]["gradients"] == events[0]["parameters"] == 4


def test_a_weight_alone_is_told_where_its_updates_are_skipped(tmp_path: Path) -> None:
    """Gradient scaling leaves the updates out, so that only what was broken before is."""
    assert told(train(tmp_path, weight_breaks, every=100, skips=True)) == [(4, "parameter", "net.2.weight", "nan")]


def test_a_gradient_that_breaks_a_finite_loss_is_told_when_measured(tmp_path: Path) -> None:
    """sqrt at 0: its gradient is infinite. The layer nearest to the output has it first."""
    net = network()
    with torch.no_grad():
        net[2].weight.zero_()
        net[2].bias.zero_()
    monitor = spectra.Monitor({"net": net}, tmp_path, every=1)
    monitor.before_update("net")
    loss = net(torch.ones(1, 4)).square().sum().sqrt() + net[0].weight.sum() * 0
    loss.backward()
    monitor.after_backward("net")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= 0.1 * parameter.grad
    monitor.after_step(1, {"loss": loss.item()})
    monitor.close()
    assert math.isfinite(loss.item())
    (event,) = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines()[-1:])
    assert (event["what"], event["name"], event["value"]) == ("gradient", "net.2.bias", "nan")


def test_gradients_of_a_skipped_update_are_no_trouble(tmp_path: Path) -> None:
    bad, good = torch.tensor([INF]), torch.ones(1)
    look = FirstNonFinite(tmp_path)
    measured = {"gradient_norm/D.w": INF, "relative_update/D.b": INF, "gradient_share/D.w": NAN}
    assert look.look(1, {"loss": 1.0}, measured, {"D.w": good}, {"D.w": bad}, {"D.w": good}) is None
    said = {"skipped/D": 1.0, "gradient_norm/D": INF}
    assert look.look(2, said, measured, {"D.w": good}, {"D.w": bad}, {}) is None
    first = look.look(3, {"skipped/D": 0.0, "gradient_norm/D": INF}, {}, {"D.w": good}, {"D.v": good, "D.w": bad}, {})
    assert (first["what"], first["name"], first["value"]) == ("gradient", "D.w", "inf")
    assert look.look(4, {"loss": NAN}, {}, {}, {}, {}) is None  # once


def test_tensors_are_searched_only_where_a_number_says_so(tmp_path: Path) -> None:
    class Untouchable(dict):
        def items(self) -> None:
            raise AssertionError("searched")

    look = FirstNonFinite(tmp_path).look
    assert look(1, {"loss": 1.0}, {"sigma0/a": 2.0, "relative_update/b": INF}, *[Untouchable(a=1)] * 3) is None


def test_kinds_of_tensors_that_cannot_be_searched_break_nothing(tmp_path: Path) -> None:
    odd = {
        "net.meta": torch.empty(2, device="meta"),
        "net.empty": torch.empty(0),
        "net.integers": torch.ones(2, dtype=torch.int64),
        "net.sparse": torch.eye(2).to_sparse(),
        "net.complex": torch.tensor([complex(1, NAN)]),
    }
    first = FirstNonFinite(tmp_path).look(1, {"loss": NAN}, {}, odd, {}, {})
    assert (first["what"], first["parameters"]) == ("scalar", 1)


def test_a_resumed_run_tells_it_again_only_if_it_went_back_before_it(tmp_path: Path) -> None:
    assert len(train(tmp_path, loss_breaks, every=100)) == 1
    assert len(train(tmp_path, loss_breaks, every=100, start=4)) == 1
    events = train(tmp_path, loss_breaks, every=100, start=2)
    assert [bool(event.get("superseded")) for event in events] == [True, False]


def test_a_trainers_run_has_one_beside_its_own_event(tmp_path: Path) -> None:
    run = tmp_path / "run"
    bad = ["--optim.G.lr=1e38", "--optim.D.lr=1e38", "--steps=4", "--quiet"]
    assert train_main(["--out", str(run), *TINY, *bad]) == 0
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events]
    (first,) = [event for event in events if event["event"] == "first_non_finite"]
    assert kinds.count("non_finite") >= 1
    assert first["step"] <= next(event["step"] for event in events if event["event"] == "non_finite")
    assert first["what"] in ("parameter", "gradient", "scalar")
