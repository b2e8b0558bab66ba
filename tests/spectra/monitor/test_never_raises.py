"""Whatever training does to its layers, and whatever becomes of the disk, `spectra.watch` raises nothing into it."""

from __future__ import annotations

import errno
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import spectra

STEPS, CHANGED = 6, 3  # the change comes after this step


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4))


def train(net: nn.Sequential, run: Path, change: Callable[[nn.Sequential], Any], **settings: Any) -> dict:
    """Train with a change in the middle, and give the record. An exception of the monitor's would end it."""
    with warnings.catch_warnings(), spectra.watch(net, run, every=1, **settings) as monitor:
        warnings.simplefilter("error")
        optimizer = torch.optim.SGD([p for p in net.parameters() if not p.is_meta], lr=0.01)
        for step in range(1, STEPS + 1):
            optimizer.zero_grad()
            loss = net(torch.ones(3, 4)).square().mean()
            loss.backward()
            optimizer.step()
            monitor.step(loss=loss.item())
            del loss  # torch remembers the shapes of its graph
            if step == CHANGED:
                change(net)
                trained = [p for p in net.parameters() if p.requires_grad and not p.is_meta]
                optimizer = torch.optim.SGD(trained, lr=0.01)
    return spectra.load(run)


def steps_of(frames: dict, layer: str) -> list[int]:
    return frames["spectra"].query("layer == @layer").step.tolist()


def not_measured(frames: dict) -> dict[str, str]:
    events = frames["events"]
    assert set(events.event) <= {"not_measured", "first_non_finite"}
    events = events[events.event == "not_measured"]
    return {event.get("layer", ""): event["reason"] for event in events.details}


def is_right(frames: dict, layer: str, weight: torch.Tensor) -> bool:
    last = frames["spectra"].query("layer == @layer and step == @STEPS").iloc[0]
    truth = torch.linalg.svdvals(weight.detach().double().flatten(1))[0].item()
    return last.sigma0 == pytest.approx(truth, rel=1e-5) and [last.out, last.rest] == list(weight.flatten(1).shape)


def test_a_layer_that_is_added_is_recorded_from_there_on(tmp_path: Path) -> None:
    net = network()
    frames = train(net, tmp_path, lambda net: net.extend([nn.Tanh(), nn.Linear(4, 3)]))
    assert steps_of(frames, "model.0") == [1, 2, 3, 4, 5, 6]
    assert steps_of(frames, "model.6") == [4, 5, 6]
    assert is_right(frames, "model.6", net[6].weight)
    added = frames["spectra"].query("layer == 'model.6'")
    assert added.kind.unique().tolist() == ["linear"]
    assert added.depth.unique().tolist() == [3]
    assert added.turn0.notna().tolist() == [False, True, True]
    assert added.rotation.notna().all()
    assert frames["gradients"].query("parameter == 'model.6.weight'").gradient_norm.notna().all()
    assert not_measured(frames) == {}
    assert frames["scalars"].query("name == 'loss'").step.tolist() == [1, 2, 3, 4, 5, 6]
    # The run can be gone on with: its layers are those of its end.
    spectra.watch(net, tmp_path, start_step=STEPS, every=1).close()
    with pytest.raises(ValueError, match="its layers differ"):
        spectra.watch(network(), tmp_path, start_step=STEPS)


def test_a_layer_that_is_removed_ends_there(tmp_path: Path) -> None:
    frames = train(network(), tmp_path, lambda net: net.pop(2) and net.pop(2))
    assert steps_of(frames, "model.0") == [1, 2, 3, 4, 5, 6]
    assert steps_of(frames, "model.4") == [1, 2, 3]
    assert steps_of(frames, "model.2") == [1, 2, 3, 4, 5, 6]  # another layer's name now
    assert not_measured(frames) == {}


@pytest.mark.parametrize("in_place", [False, True], ids=["replaced", "by-data"])
def test_a_layer_that_is_widened(tmp_path: Path, in_place: bool) -> None:
    def widen(net: nn.Sequential) -> None:
        if in_place:
            net[0].weight.data, net[0].bias.data = torch.randn(9, 4), torch.zeros(9)
            net[2].weight.data = torch.randn(6, 9)
        else:
            net[0], net[2] = nn.Linear(4, 9), nn.Linear(9, 6)

    net = network()
    frames = train(net, tmp_path, widen)
    assert steps_of(frames, "model.0") == [1, 2, 3, 4, 5, 6]
    assert is_right(frames, "model.0", net[0].weight)
    assert is_right(frames, "model.2", net[2].weight)
    turned = frames["spectra"].query("layer == 'model.0'").turn0
    assert turned.notna().tolist() == [False, True, True, False, True, True]  # matched by name and shape
    assert not_measured(frames) == {}


def test_a_change_between_the_update_and_the_measurement(tmp_path: Path) -> None:
    """What was copied before it does not fit any more, and is left out."""
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with spectra.watch(net, tmp_path, every=1) as monitor:
        net(torch.ones(3, 4)).sum().backward()
        optimizer.step()
        net[2] = nn.Linear(6, 9)
        net[4] = nn.utils.parametrizations.orthogonal(nn.Linear(9, 4))
        monitor.step()
    frames = spectra.load(tmp_path)
    assert frames["spectra"].rotation.notna().tolist() == [True, False, False]
    assert frames["spectra"].layer.tolist() == ["model.0", "model.2", "model.4"]
    assert not_measured(frames) == {}


def test_layers_that_are_unfrozen_and_frozen(tmp_path: Path) -> None:
    net = network()
    net[2].requires_grad_(False)

    def swap(net: nn.Sequential) -> None:
        net[2].requires_grad_(True)
        net[0].requires_grad_(False)

    frames = train(net, tmp_path, swap)
    gradients = frames["gradients"]
    assert gradients.query("parameter == 'model.2.weight'").step.tolist() == [4, 5, 6]
    assert gradients.query("parameter == 'model.0.weight'").step.tolist() == [1, 2, 3]
    assert steps_of(frames, "model.2") == steps_of(frames, "model.0") == [1, 2, 3, 4, 5, 6]


class LoRA(nn.Module):
    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(rows, 2)), nn.Parameter(torch.randn(2, columns))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.a @ self.b


@pytest.mark.parametrize(
    "parametrization",
    [
        lambda layer: parametrize.register_parametrization(layer, "weight", LoRA(6, 6)),
        lambda layer: nn.utils.parametrizations.spectral_norm(layer),
        lambda layer: nn.utils.spectral_norm(layer),
        lambda layer: nn.utils.parametrizations.weight_norm(layer),
    ],
    ids=["lora", "spectral_norm", "old-spectral_norm", "weight_norm"],
)
def test_a_weight_that_is_replaced_by_a_parametrization(tmp_path: Path, parametrization: Callable) -> None:
    frames = train(network(), tmp_path, lambda net: parametrization(net[2]))
    assert steps_of(frames, "model.2") == [1, 2, 3, 4, 5, 6]
    assert steps_of(frames, "model.4") == [1, 2, 3, 4, 5, 6]
    assert frames["spectra"].rotation.notna().all()
    assert not_measured(frames) == {}


ODD = {
    "empty": (torch.empty(0, 4), "it is empty, of shape [0, 4]"),
    "complex": (torch.randn(3, 3, dtype=torch.complex64), "it is complex (torch.complex64)"),
    "meta": (torch.empty(3, 3, device="meta"), "it is on the meta device, and has no values"),
    "sparse": (torch.eye(3).to_sparse(), "it is sparse (torch.sparse_coo)"),
    "float8": (
        torch.ones(3, 3).to(torch.float8_e4m3fn),
        "it is quantized, or not of real numbers (torch.float8_e4m3fn)",
    ),
}


@pytest.mark.parametrize("later", [False, True], ids=["at-construction", "later"])
@pytest.mark.parametrize("kind", ODD)
def test_a_parameter_that_cannot_be_measured_is_an_event_with_its_name(tmp_path: Path, kind: str, later: bool) -> None:
    value, reason = ODD[kind]

    def spoil(net: nn.Sequential) -> None:
        net[1].register_parameter("odd", nn.Parameter(value))
        net[1].register_parameter("vector", nn.Parameter(value[0] if kind == "complex" else torch.ones(3)))

    net = network()
    if not later:
        spoil(net)
    frames = train(net, tmp_path, spoil if later else lambda net: None)
    expected = {"model.1.odd": reason}
    if kind == "complex":
        expected["model.1.vector"] = reason
    assert not_measured(frames) == expected
    for layer in ("model.0", "model.2", "model.4"):
        assert steps_of(frames, layer) == [1, 2, 3, 4, 5, 6]
    assert len(frames["events"]) == len(expected)  # once, not at every step


def test_a_lazy_layer_is_an_event_until_it_has_weights(tmp_path: Path) -> None:
    frames = train(network(), tmp_path, lambda net: net[1].add_module("late", nn.LazyLinear(3)))
    assert "lazy" in not_measured(frames)["model.1.late"]
    assert steps_of(frames, "model.4") == [1, 2, 3, 4, 5, 6]


def test_a_network_that_loses_all_its_weights(tmp_path: Path) -> None:
    net = network()
    with spectra.watch(net, tmp_path, every=1) as monitor:
        monitor.step(loss=1.0)
        del net[:]
        monitor.step(loss=2.0)
        net.append(nn.Linear(2, 2))
        monitor.step(loss=3.0)
    frames = spectra.load(tmp_path)
    assert frames["scalars"].query("name == 'loss'").value.tolist() == [1, 2, 3]
    assert sorted(set(frames["spectra"].step)) == [1, 3]


class Fussy(spectra.Probe):
    """Fails on one layer."""

    quantities = ("fussy",)

    def measure(self, snapshot: spectra.Snapshot) -> dict[str, float]:
        if any(matrix.name == "model.2" for matrix in snapshot.matrices):
            raise FloatingPointError("not this one")
        return {f"fussy/{matrix.name}": 1.0 for matrix in snapshot.matrices}


@pytest.mark.parametrize("make", [spectra.watch, spectra.Monitor], ids=["watch", "Monitor"])
def test_what_fails_for_one_layer_costs_no_other_layer_or_probe(tmp_path: Path, make: Callable) -> None:
    monitor = make(network(), tmp_path, every=1, probes=[Fussy(), "frobenius", "singular_values"])
    for step in (1, 2):
        monitor.step() if make is spectra.watch else monitor.after_step(step)
    monitor.close()
    frames = spectra.load(tmp_path)
    assert set(frames["spectra"].dropna(subset="fussy").layer) == {"model.0", "model.4"}
    assert frames["spectra"].sigma0.notna().all()
    assert frames["spectra"].frobenius.notna().all()
    assert frames["events"].details.tolist() == [
        {"layer": "model.2", "probe": "Fussy", "reason": "FloatingPointError: not this one"}
    ]


def test_singular_values_that_fail_for_one_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when memory runs out: the others are measured, and their turns are known."""
    real = spectra.linalg.topk.top_singular_values_batch

    def failing(weights: list[torch.Tensor], *args: Any, **keywords: Any) -> Any:
        if any(weight.shape == (6, 6) for weight in weights):
            raise torch.OutOfMemoryError("6 x 6 is too much")
        return real(weights, *args, **keywords)

    monkeypatch.setattr("spectra.linalg.topk.top_singular_values_batch", failing)
    frames = train(network(), tmp_path, lambda net: None)
    found = frames["spectra"].query("step == 6").set_index("layer")
    assert found.sigma0.notna().to_dict() == {"model.0": True, "model.2": False, "model.4": True}
    assert found.turn0.notna().to_dict() == {"model.0": True, "model.2": False, "model.4": True}
    assert found.frobenius.notna().all()
    assert {event["layer"] for event in frames["events"].details} == {"model.2"}


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


WRITERS = {
    "record": "spectra.record.batches.BatchWriter.write",
    "vectors": "spectra.monitor.vectors.write_directions",
    "events": "spectra.monitor.monitor.append_event",
}


@pytest.mark.parametrize("which", [*WRITERS, "all"])
def test_a_full_disk_is_one_warning_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    net, sent = network(), []
    monitor = spectra.watch(net, tmp_path, every=1, sinks=[lambda numbers, step: sent.append(step)])
    net[1].register_parameter("odd", nn.Parameter(torch.empty(0, 4)))  # an event
    for name, place in WRITERS.items():
        if which in (name, "all"):
            monkeypatch.setattr(place, full)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for step in range(1, 5):
            monitor.step(loss=1.0)
            if step == 2:
                monitor.saved()
        monitor.close()
        monitor.step(loss=1.0)
    assert len(said) == 1
    assert "No space left" in str(said[0].message)
    assert sent == [1, 2, 3, 4]  # what needs no disk goes on
    monkeypatch.undo()
    recorded = spectra.load(tmp_path)["spectra"]
    assert sorted(set(recorded.step)) == ([1, 2, 3, 4] if which in ("vectors", "events") else [])


def test_a_monitor_of_a_trainer_raises_what_a_write_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = spectra.Monitor(network(), tmp_path, every=1, probes=["turns"])
    monkeypatch.setattr(WRITERS["vectors"], full)
    with pytest.raises(OSError, match="No space left"):
        monitor.after_step(1)


def test_warnings_that_are_errors_and_failing_callbacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def sink(numbers: dict, step: int) -> None:
        raise ConnectionError("no network")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with spectra.watch(network(), tmp_path, every=2, sinks=[sink], on_alarm=lambda event: 1 / 0) as monitor:
            for _ in range(3):
                monitor.step({"loss/a": 1.0}, bad="words", worse=[1, 2], vector=torch.ones(3), nothing=math.nan)
            monitor.monitor.on_event({"event": "alarm", "step": 3})
    said = capsys.readouterr().err
    assert said.count("ConnectionError: no network") == 1
    assert said.count("ZeroDivisionError") == 1
    frames = spectra.load(tmp_path)
    scalars = frames["scalars"]
    assert set(scalars.name) >= {"loss/a", "nothing"}
    assert scalars.query("name == 'nothing'").value.isna().tolist() == [True] * 3
    assert set(not_measured(frames)) == {"bad", "worse", "vector"}


def test_a_detector_that_fails_is_an_event(tmp_path: Path) -> None:
    class Broken(spectra.Detector):
        def update(self, step: int, values: dict) -> list:
            raise KeyError(step)

    with spectra.watch(network(), tmp_path, every=1, detectors=[Broken()]) as monitor:
        monitor.step(loss=1.0)
        monitor.step(loss=1.0)
    frames = spectra.load(tmp_path)
    assert frames["events"].details.tolist() == [{"probe": "detectors", "reason": "KeyError: 1"}]
    assert isinstance(frames["spectra"], pd.DataFrame)
    assert sorted(set(frames["spectra"].step)) == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"every": 0.5}, TypeError, "every is a whole number of steps, or a schedule .*got 0.5"),
        ({"every": True}, TypeError, "got True"),
        ({"every": 0}, ValueError, "at least 1; got 0"),
        ({"every": spectra.Logarithmic}, TypeError, "every is a whole number"),
        ({"burst": 1.5}, ValueError, "a burst is a whole number"),
        ({"top_k": 0}, ValueError, "top_k is a whole number, at least 1; got 0"),
        ({"top_k": 2.0}, ValueError, "top_k is a whole number"),
        ({"start_step": -1}, ValueError, "start_step is a whole number, at least 0"),
        ({"tol": 0}, ValueError, "tol is the largest relative error"),
        ({"probes": [spectra.Probe]}, TypeError, "a probe is a name or an instance"),
        ({"sinks": [3]}, TypeError, "a sink is a function"),
        ({"on_alarm": "stop"}, TypeError, "on_alarm is a function"),
        ({"on_failed_write": "ignore"}, ValueError, "'raise' or 'warn'"),
        ({"optimizer": []}, ValueError, "is empty"),
        ({"optimizer": "adam"}, TypeError, "torch optimizers; got str"),
        ({"optimizer": torch.optim.SGD([nn.Parameter(torch.ones(2))])}, ValueError, "holds no parameter of model"),
    ],
)
def test_what_is_wrong_is_said_at_construction(
    tmp_path: Path, arguments: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        spectra.watch(network(), tmp_path / "run", **arguments)


@pytest.mark.parametrize(
    ("networks", "error", "words"),
    [
        (None, TypeError, "a network, or networks by name"),
        ({"G": 3}, TypeError, "'G' must be a torch module; got int"),
        ([nn.Linear(2, 2)], TypeError, "by name"),
        (nn.Sequential(nn.Tanh()), ValueError, "no weight matrix"),
        (nn.Linear(3, 3, device="meta"), ValueError, "no weight matrix can be measured: of 'model'.* meta device"),
    ],
)
def test_what_is_no_network_is_said_at_construction(
    tmp_path: Path, networks: Any, error: type[Exception], words: str
) -> None:
    for make in (spectra.watch, spectra.Monitor):
        with pytest.raises(error, match=words):
            make(networks, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_alarms_and_numbers_are_told(tmp_path: Path) -> None:
    told, logged = [], []
    with spectra.watch(
        network(), tmp_path, every=2, on_alarm=told.append, sinks=lambda numbers, step: logged.append((step, numbers))
    ) as monitor:
        monitor.step(loss=torch.tensor(2.0, requires_grad=True))
        monitor.step(loss=3.0)
        monitor.log(validation=4)
        monitor.monitor.on_event({"event": "alarm", "step": 2, "cause": "explosion"})
    assert logged[0] == (1, {"loss": 2.0})
    assert logged[1][1].keys() >= {"loss", "sigma0/model.0"}
    assert logged[2] == (2, {"validation": 4.0})
    assert told == [{"event": "alarm", "step": 2, "cause": "explosion"}]
