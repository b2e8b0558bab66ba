"""The monitor: right numbers, in any loop, and a run that is the same bits with and without it."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import assert_same_state
from torch import nn

import spectra
from spectra.monitor.schedule import Bursts, Every, Logarithmic


def network() -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Embedding(5, 6), nn.Linear(6, 8), nn.ReLU(), nn.utils.parametrizations.spectral_norm(nn.Linear(8, 4))]
    return nn.Sequential(*layers).train()


def loop(net: nn.Module, monitor: spectra.Monitor | None, steps: range, optimizer: torch.optim.Optimizer) -> None:
    for step in steps:
        if monitor:
            monitor.before_update("net")
        optimizer.zero_grad()
        loss = net(torch.tensor([step % 5, (step + 1) % 5])).square().sum()
        loss.backward()
        if monitor:
            monitor.after_backward("net")
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
        if monitor:
            monitor.after_step(step, {"loss": loss.item()})


def row(frames: Mapping, frame: str, **where: object) -> Mapping:
    found = frames[frame]
    for name, value in where.items():
        found = found[found[name] == value]
    assert len(found) == 1
    return found.iloc[0]


def test_every_probe_against_its_definition(tmp_path: Path) -> None:
    """One step of a bare loop, every number computed again in float64 with full decompositions."""
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    monitor = spectra.Monitor({"net": net}, tmp_path, every=1, top_k=2)
    loop(net, monitor, range(1, 2), optimizer)
    then = torch.linalg.svd(net[1].weight.detach().double())
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    gradients = {}

    class Spy:  # stands where the monitor does, after the same backward pass
        def __getattr__(self, name: str) -> object:
            return getattr(monitor, name)

        def after_backward(self, name: str) -> None:
            monitor.after_backward(name)
            gradients.update({n: p.grad.detach().clone() for n, p in net.named_parameters()})

    loop(net, Spy(), range(2, 3), optimizer)
    monitor.close()
    frames = spectra.load(tmp_path)
    weight, old = net[1].weight.detach().double(), before["1.weight"].double()
    u, s, vt = torch.linalg.svd(weight)
    found = row(frames, "spectra", step=2, layer="net.1")
    assert (found.network, found.kind, found.depth, found.out, found.rest) == ("net", "linear", 1, 8, 6)
    assert [found.sigma0, found.sigma1] == pytest.approx(s[:2].tolist(), rel=1e-6)
    assert math.isnan(found.sigma2)
    assert found.converged == 1
    assert found.residual < 1e-5
    assert found.frobenius == pytest.approx(weight.norm().item(), rel=1e-9)
    assert found.stable_rank == pytest.approx((weight.norm() / s[0]).item() ** 2, rel=1e-5)
    assert found.ratio == pytest.approx((s[0] / s[1]).item(), rel=1e-5)
    for name, change in (("gradient_share", gradients["1.weight"].double()), ("update_share", weight - old)):
        expected = (u[:, :2].T @ change @ vt[:2].T).norm() ** 2 / change.norm() ** 2
        assert found[name] == pytest.approx(expected.item(), rel=1e-3)
    cosine = (weight * old).sum() / weight.norm() / old.norm()
    assert found.rotation == pytest.approx(torch.arccos(cosine).item(), rel=1e-3)
    turned = torch.arccos((u[:, 0] @ then[0][:, 0]) * (vt[0] @ then[2][0]))
    assert found.turn0 == pytest.approx(turned.item(), rel=1e-2)
    assert math.isnan(found.sigma_estimate)
    normalized = row(frames, "spectra", step=2, layer="net.3")
    estimate = net[3].parametrizations.weight.original.norm() / net.eval()[3].weight.norm()
    assert normalized.sigma_estimate == pytest.approx(estimate.item(), rel=1e-5)
    assert normalized.sigma_lag == pytest.approx(1 - normalized.sigma_estimate / normalized.sigma0)
    norms = {name: gradient.double().norm().item() for name, gradient in gradients.items()}
    for name, norm in norms.items():
        assert row(frames, "gradients", step=2, parameter=f"net.{name}").gradient_norm == pytest.approx(norm, rel=1e-9)
    variance = row(frames, "scalars", step=2, name="gradient_variance/net").value
    assert variance == pytest.approx(np.var(list(norms.values())), rel=1e-9)
    update = row(frames, "gradients", step=2, parameter="net.1.weight").relative_update
    assert update == pytest.approx(((weight - old).norm() / old.norm()).item(), rel=1e-5)
    classes = frames["embeddings"].query("step == 2")
    assert classes["class"].tolist() == [0, 1, 2, 3, 4]
    assert classes.class_norm.tolist() == pytest.approx(net[0].weight.norm(dim=1).tolist())
    assert row(frames, "scalars", step=2, name="monitor/seconds").value > 0
    assert row(frames, "scalars", step=2, name="loss").value > 0


def test_a_run_is_the_same_bits_with_and_without(tmp_path: Path) -> None:
    """Every step, all probes: weights, buffers, moments, gradients, modes and random states."""
    ends = []
    for watched in (False, True):
        net = network()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
        torch.manual_seed(7)
        np.random.seed(7)
        monitor = spectra.Monitor({"net": net}, tmp_path, every=1) if watched else None
        loop(net, monitor, range(1, 8), optimizer)
        state = dict(net.state_dict()) | {f"grad.{n}": p.grad for n, p in net.named_parameters()}
        state |= {f"{i}.{n}": t for i, s in optimizer.state_dict()["state"].items() for n, t in s.items()}
        state["random"] = torch.get_rng_state()
        state["numpy"] = torch.from_numpy(np.random.get_state()[1].astype(np.int64))
        ends.append({name: tensor.clone() for name, tensor in state.items()})
        assert all(module.training for module in net.modules())
    monitor.close()
    assert_same_state(*ends)


@pytest.mark.parametrize("stop", [4, 5])
def test_a_resumed_record_equals_an_unbroken_one(tmp_path: Path, stop: int) -> None:
    """To the bit, turns and the burst after an alarm included; the rows after the checkpoint are made again."""
    for run, parts in (("whole", [(0, 12)]), ("broken", [(0, stop + 3), (stop, 12)])):
        net = network()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
        saved: dict = {}
        for start, end in parts:
            if start:
                net.load_state_dict(saved["net"])
                optimizer.load_state_dict(saved["optimizer"])
            monitor = spectra.Monitor({"net": net}, tmp_path / run, start_step=start, every=4, burst=3)
            for step in range(start + 1, end + 1):
                loop(net, monitor, range(step, step + 1), optimizer)
                if step == 2:
                    event = {"event": "alarm", "step": 2}
                    (tmp_path / run / "events.jsonl").write_text(json.dumps(event) + '\n{"torn')
                    monitor.on_event(event)
                if step == stop:
                    parts_of_state = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
                    saved = copied(parts_of_state)
                    monitor.on_checkpoint(step)
            monitor.close()
    one, other = (spectra.load(tmp_path / run) for run in ("whole", "broken"))
    assert sorted(set(one["spectra"].step)) == [3, 4, 5, 8, 12]
    for name in ("spectra", "gradients", "embeddings"):
        assert one[name].astype(str).equals(other[name].astype(str)), name
        assert len(one[name])
    scalars = [frames["scalars"].query("name != 'monitor/seconds'") for frames in (one, other)]
    assert scalars[0].value.tolist() == scalars[1].value.tolist()


def copied(value: object) -> object:
    if isinstance(value, dict):
        return {name: copied(entry) for name, entry in value.items()}
    return value.clone() if isinstance(value, torch.Tensor) else value


def test_nan_inf_and_missing_gradients_are_recorded_as_they_are(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with closing(spectra.Monitor({"net": net}, tmp_path, every=1)) as monitor:
        monitor.before_update("net")
        net[0](torch.ones(3)).sum().backward()
        net[0].weight.grad[0, 0] = math.inf
        monitor.after_backward("net")
        with torch.no_grad():
            net[1].weight[0, 0] = math.nan
        monitor.after_step(1, {"loss": -math.inf})
    frames = spectra.load(tmp_path)
    assert row(frames, "scalars", name="loss").value == -math.inf
    assert math.isnan(row(frames, "spectra", layer="net.1").sigma0)
    assert row(frames, "spectra", layer="net.1").converged == 0
    assert row(frames, "spectra", layer="net.0").converged == 1
    assert row(frames, "gradients", parameter="net.0.weight").gradient_norm == math.inf
    assert math.isnan(row(frames, "gradients", parameter="net.1.weight").gradient_norm)  # it had none


def test_a_missing_gradient_is_missing_everywhere_and_no_update_of_zero(tmp_path: Path) -> None:
    """A gradient of zeros is none of these, nor is a parameter that moves without a gradient."""
    layers = [nn.Linear(3, 3) for _ in range(4)]
    net = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with closing(spectra.Monitor({"net": net}, tmp_path, every=1)) as monitor:
        monitor.before_update("net")
        net[0](torch.ones(3)).sum().backward()
        net[2].weight.grad = torch.zeros(3, 3)
        monitor.after_backward("net")
        optimizer.step()
        with torch.no_grad():
            net[3].weight.mul_(2)
        monitor.after_step(1)
    names = {name for _, name in recorded(tmp_path)}
    for quantity in ("relative_update", "rotation", "update_share", "gradient_norm", "gradient_share"):
        had = {name.split("/")[1].removesuffix(".weight") for name in names if name.startswith(f"{quantity}/")}
        had = {name for name in had if not name.endswith(".bias")}
        assert had == ({"net.0", "net.2"} if quantity.startswith("gradient") else {"net.0", "net.2", "net.3"}), quantity
    frames = spectra.load(tmp_path)
    assert row(frames, "gradients", parameter="net.2.weight").relative_update == 0
    assert row(frames, "gradients", parameter="net.3.weight").relative_update == 1
    assert "relative_update/net.1.bias" not in names


def test_bad_input_is_named(tmp_path: Path) -> None:
    net, other = network(), nn.Linear(2, 2)
    for networks, said in [
        ([("G", net), ("G", other)], "two networks are called 'G'"),
        ({"G": net, "D": net}, "'G' and 'D' are one and the same"),
        ({"G.x": net}, "without dots"),
    ]:
        with pytest.raises(ValueError, match=said):
            spectra.Monitor(networks, tmp_path / "a")
    with pytest.raises(ValueError, match="did you mean 'frobenius'"):
        spectra.Monitor({"net": net}, tmp_path / "a", probes=["frobenus"])
    with pytest.raises(ValueError, match="at least 1; got 0"):
        spectra.Monitor({"net": net}, tmp_path / "a", every=0)
    assert not (tmp_path / "a").exists()  # nothing is written for a mistake
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    monitor = spectra.Monitor({"net": net, "other": other}, tmp_path / "b")
    with pytest.raises(ValueError, match=r"unknown network 'nte'; known: 'net', 'other'"):
        monitor.before_update("nte")
    with pytest.raises(RuntimeError, match=r"after_step\(1\) was called without after_backward\('other'\)"):
        loop(net, monitor, range(1, 2), optimizer)
    monitor.close()
    monitor = spectra.Monitor({"net": net}, tmp_path / "c")
    loop(net, monitor, range(0, 3), optimizer)
    for step in (1, 2):
        with pytest.raises(ValueError, match=f"step {step} comes after step 2"):
            monitor.after_step(step)
    monitor.close()
    with pytest.raises(ValueError, match=r"record of another run.*begins at 0"):
        spectra.Monitor({"net": net}, tmp_path / "c")
    with pytest.raises(ValueError, match=r"record of another run: its layers differ.*net.* is"):
        spectra.Monitor({"net": other}, tmp_path / "c", start_step=2)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        spectra.load(tmp_path / "nothing")


def test_steps_may_leave_numbers_out(tmp_path: Path) -> None:
    """A loop that counts by tens is foreseen from its second step on."""
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    monitor = spectra.Monitor({"net": net}, tmp_path, every=20)
    loop(net, monitor, range(10, 90, 10), optimizer)
    monitor.close()
    frames = spectra.load(tmp_path)
    assert sorted(set(frames["gradients"].step)) == [20, 40, 60, 80]
    assert frames["gradients"].relative_update.notna().all()


def test_schedules() -> None:
    assert [s for s in range(10) if Every(3).is_due(s)] == [0, 3, 6, 9]
    logarithmic = [s for s in range(10_001) if Logarithmic(4).is_due(s)]
    assert logarithmic == [0, 1, 2, 3, 6, 10, 18, 32, 56, 100, 178, 316, 562, 1000, 1778, 3162, 5623, 10000]
    bursts = Bursts(Every(10), 3)
    bursts.alarm(12)
    bursts.alarm(14)
    assert [s for s in range(31) if bursts.is_due(s)] == [0, 10, 13, 14, 15, 16, 17, 20, 30]


def test_a_new_probe_is_one_class(tmp_path: Path) -> None:
    class Largest(spectra.Probe):
        """The largest entry."""

        quantities = ("largest",)

        def measure(self, snapshot: spectra.Snapshot) -> dict:
            return {f"largest/{m.name}": m.raw().abs().max() for m in snapshot.matrices}

    net = network()
    monitor = spectra.Monitor({"net": net}, tmp_path, every=1, probes=["frobenius", Largest()])
    monitor.after_step(1)  # neither probe needs gradients
    monitor.close()
    found = row(spectra.load(tmp_path), "spectra", layer="net.1")
    assert found.largest == pytest.approx(net[1].weight.abs().max().item())


def test_the_variance_of_gradient_norms_in_time(tmp_path: Path) -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    monitor = spectra.Monitor({"net": net}, tmp_path, every=1, probes=["gradient_norms"])
    loop(net, monitor, range(1, 9), optimizer)
    monitor.close()
    gradients = spectra.load(tmp_path)["gradients"]
    found = spectra.gradient_variance_in_time(gradients, window=3)
    norms = [math.sqrt((gradients[gradients.step == step].gradient_norm ** 2).sum()) for step in range(1, 9)]
    assert found.norm.tolist() == pytest.approx(norms)
    expected = [np.var(norms[max(0, i - 2) : i + 1]) for i in range(1, 8)]
    assert found.variance.tolist()[1:] == pytest.approx(expected, rel=1e-6)
    assert math.isnan(found.variance[0])


def test_class_norms_of_a_large_vocabulary_are_its_ends_and_their_mean(tmp_path: Path) -> None:
    net = nn.Embedding(1500, 2)
    with torch.no_grad():
        net.weight.copy_(torch.arange(1.0, 1501.0)[:, None].expand(1500, 2) / 2**0.5)
        net.weight[700] = math.nan
    monitor = spectra.Monitor({"net": net}, tmp_path, every=1, probes=["class_norms"])
    monitor.after_step(1)
    monitor.close()
    frames = spectra.load(tmp_path)
    assert frames["embeddings"]["class"].tolist() == [*range(10), 700, *range(1491, 1500)]
    assert frames["embeddings"].query("`class` == 1499").class_norm.item() == pytest.approx(1500)
    assert math.isnan(row(frames, "scalars", name="class_norm_mean/net").value)


def test_a_record_without_a_legend_is_read_by_its_names(tmp_path: Path) -> None:
    from spectra.record.segments import RecordWriter

    writer = RecordWriter(tmp_path, 0)
    for step in (1, 2):
        writer.append(step, {"loss/G": 1.0, "sigma0/G.b": 2.0, "sigma0/D.a": 3.0, "frobenius/D.a": 4.0})
    writer.close()
    frames = spectra.load(tmp_path)
    assert frames["spectra"][["step", "network", "layer", "depth", "sigma0"]].to_numpy().tolist() == [
        [1, "G", "G.b", 0, 2.0], [1, "D", "D.a", 0, 3.0], [2, "G", "G.b", 0, 2.0], [2, "D", "D.a", 0, 3.0],
    ]  # fmt: skip
    assert frames["scalars"].name.tolist() == ["loss/G", "loss/G"]
    assert len(frames["events"]) == len(frames["gradients"]) == 0


OPTIONS = [
    "--model.resolution=8", "--model.ch_G=4", "--model.ch_D=4", "--train.batch=8", "--train.d_steps=2",
    "--samples.every=0", "--spectra.every=2", "--quiet", "--discriminator_view.every=3",
]  # fmt: skip


class Signal:
    """Ends a run as SIGTERM does, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)

    def __getattr__(self, name: str) -> object:
        return lambda *_: None


@pytest.mark.parametrize("guarantee", ["certified", "tracked"])
def test_no_save_resume_or_signal_moves_a_recorded_bit(
    guarantee: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other checkpoint schedules, a resume on and off the schedule of measurements, a state saved on SIGTERM."""
    from biggan.cli.options import parse
    from biggan.cli.train import train_main
    from biggan.run.assemble import train_session
    from biggan.run.session import open_new

    monkeypatch.setattr("spectra.linalg.topk.EXACT_UP_TO_ON_CPU", 4)  # by Krylov iterations, which begin somewhere
    monkeypatch.setattr("spectra.linalg.solvers.GRAM_UP_TO", 4)
    runs = {name: tmp_path / name for name in ("whole", "often", "signalled")}
    options = [*OPTIONS, f"--spectra.guarantee={guarantee}", "--spectra.certify_every=4"]
    start = {name: ["--out", str(run), *options] for name, run in runs.items()}
    assert train_main([*start["whole"], "--steps=8", "--checkpoint.every=100"]) == 0
    assert train_main([*start["often"], "--steps=5", "--checkpoint.every=1", "--checkpoint.keep=2"]) == 0
    assert train_main(["--resume", str(runs["often"]), "--steps=8", "--quiet"]) == 0
    session = open_new(parse([*start["signalled"], "--steps=8", "--checkpoint.every=6"]).config(), "digits")
    assert train_session(session, quiet=True, further=[Signal(3)]) == "interrupted"
    assert train_main(["--resume", str(runs["signalled"]), "--quiet"]) == 0
    whole, *others = (recorded(run) for run in runs.values())
    assert {name.partition("/")[0] for _, name in whole} >= {"sigma0", "residual", "turn0", "update_share", "loss", "D"}
    assert {step for step, name in whole if name.startswith("turn0/")} == {4, 6, 8}
    tracked = {step for step, name in whole if name.startswith("tracked/")}
    assert tracked == ({6} if guarantee == "tracked" else set()), "2 is the first, and 4 divides 4 and 8"
    assert {value for (step, name), value in whole.items() if name.startswith("converged/") and step in tracked} <= {0}
    for other in others:
        assert set(other) == set(whole)
        assert [key for key, value in whole.items() if other[key].tobytes() != value.tobytes()] == []
    kept = sorted(path.name for path in (runs["often"] / "records").glob("vectors-*"))
    assert kept == ["vectors-00000006.safetensors", "vectors-00000008.safetensors"]  # for the checkpoints of 7 and 8


def recorded(run: Path) -> dict[tuple[int, str], np.float64]:
    """What a run recorded, but the clock's."""
    from spectra.record.segments import read_record

    record = read_record(run)
    keys = zip(record.step, record.name.astype(str), strict=True)
    found = dict(zip(keys, record.value.to_numpy(), strict=True))
    assert len(found) == len(record)
    return {key: value for key, value in found.items() if not key[1].startswith("monitor/")}


def test_a_probe_that_fails_is_an_event_of_a_run_and_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from biggan.cli.train import train_main

    class Failing(spectra.Probe):
        quantities = ("failing",)

        def measure(self, snapshot: spectra.Snapshot) -> dict:
            raise ArithmeticError("on purpose")

    monkeypatch.setitem(spectra.PROBES, "failing", Failing)
    options = ["--out", str(tmp_path / "run"), *OPTIONS, "--spectra.probes=[failing, frobenius]", "--steps=4"]
    assert train_main(options) == 0
    events = spectra.load(tmp_path / "run")["events"]
    said = events.query("event == 'not_measured'")
    assert said.step.tolist() == [2]
    assert said.details.tolist() == [{"probe": "Failing", "reason": "ArithmeticError: on purpose"}]
    assert events.event.tolist()[-1] == "finished"
    assert set(spectra.load(tmp_path / "run")["spectra"].step) == {2, 4}
