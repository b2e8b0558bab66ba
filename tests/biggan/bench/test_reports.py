"""The benchmark's reports: what they vary, count and fit. Their seconds are not tested."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch

from biggan import bench
from biggan.bench import ablate, gpu, growth, tables, watching
from biggan.bench.machine import matrix_rate, peak_of_tensors
from biggan.bench.traffic import count_traffic
from biggan.config import Config, SpeedConfig
from biggan.networks.resampling import Resampling

TINY = ["--model.resolution=8", "--model.ch=4", "--train.batch=4", "--device=cpu"]


@pytest.fixture(autouse=True)
def _without_long_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablate.Rig.time, "__defaults__", (0.0,))
    for module in (ablate, gpu):
        monkeypatch.setattr(module, "matrix_rate", lambda config, seconds, dtype=None: matrix_rate(config, 0.0, dtype))


def quiet(words: str) -> None:
    pass


def test_every_switch_is_one_variant() -> None:
    made = ablate.variants(compiled=True)
    plain = dataclasses.asdict(made.pop(ablate._PLAIN))
    assert plain == dataclasses.asdict(SpeedConfig())
    for name in {field.name for field in dataclasses.fields(SpeedConfig)} - {"precision"}:
        changed = {k for k, v in dataclasses.asdict(made[name]).items() if v != plain[k]}
        assert changed == {name}, name
    assert "compile" not in ablate.variants()
    everything = made[ablate.ALL]
    assert everything.precision == "float32"  # reduced precision never counts among the switches
    assert all(getattr(everything, name) for name in ablate.SWITCHES)
    assert not everything.compile
    for name in ablate.SWITCHES:
        assert dataclasses.replace(made[f"all but {name}"], **{name: True}) == everything != made[f"all but {name}"]
    assert dataclasses.replace(everything, compile=True) == made["all + compile"]


def test_a_rig_switches_the_same_weights(tiny: Callable[..., Config]) -> None:
    rig = ablate.Rig(tiny())
    runs = {name: rig.updater(speed) for name, speed in ablate.variants().items()}
    states = {id(updater.state) for updater in runs.values()}
    assert len(states) == 2  # contiguous and channels-last
    for name, speed in ablate.variants().items():
        updater = rig.updater(speed)
        for network in updater.state.networks().values():
            blocks = [m.resample for m in network.modules() if isinstance(getattr(m, "resample", None), Resampling)]
            assert blocks
            assert all((b.narrow, b.fused) == (speed.narrow_skips, speed.fused_resampling) for b in blocks), name
            assert network.batched_power_iteration == speed.batched_power_iteration
        assert updater.config.speed == speed


@pytest.mark.slow
def test_ablation_of_a_tiny_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--ablate", "digits", *TINY, "--rounds", "1", "--json"]) == 0
    (case,) = json.loads(capsys.readouterr().out)["cases"]
    assert set(case["variants"]) >= set(ablate.variants())
    plain = case["variants"][ablate._PLAIN]
    assert plain["faster"] == plain["faster_wall"] == 1
    assert case["clock"] == "cpu"
    for one in case["variants"].values():
        assert one["images_per_second"] == pytest.approx(4 / one["cpu_seconds"])
        assert one["of_matrix_rate"] == pytest.approx(
            case["flop_step"] / one["cpu_seconds"] / case["matrix_flop_per_second"]
        )
    tables.print_ablation({"cases": [case]})
    shown = capsys.readouterr().out
    assert "channels_last" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_step_s_peak_is_seen(tiny: Callable[..., Config]) -> None:
    kept = torch.ones(2**20, requires_grad=True)
    with peak_of_tensors(tiny()) as peak:
        with torch.no_grad():
            kept.add_(0)  # from before, as is a view of it
        squared = (kept.view(-1) * 2).square()  # 4 MiB each; autograd keeps the first as well
        grown = torch.cat([squared, squared])
        del squared, grown
        torch.ones(3 * 2**20)  # 12 MiB beside what autograd held before it went
    assert peak[0] == pytest.approx(4 * 2**22, rel=0.01)
    with peak_of_tensors(tiny(speed={"compile": True})) as peak:
        pass
    assert peak == []


def test_exponents_of_an_exact_law() -> None:
    sizes = [(ch, resolution, batch) for ch in (2, 4) for resolution in (8, 16) for batch in (1, 3)]
    cells = [{"ch": c, "resolution": r, "batch": b, "step_seconds": 0.1 * c**1.5 * r**2 * b**0.5} for c, r, b in sizes]
    left_out = {"ch": 64, "resolution": 16, "batch": 3, "left_out": "> 60 s"}
    found = growth.fitted_exponents([*cells, left_out], "step_seconds")
    assert found == pytest.approx({"ch": 1.5, "resolution": 2, "batch": 0.5})
    assert growth.fitted_exponents(cells[:2], "step_seconds") is None  # one batch size of each tells nothing


@pytest.mark.slow
def test_growth_leaves_out_what_would_take_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    grid = ((2, 4), (8, 16), (2, 4))  # the smallest in which all three exponents show
    found = growth.grow(["digits", "--device=cpu"], rounds=1, log=quiet, grid=grid)
    assert len(found["cells"]) == 8
    assert all(cell["step_seconds"] > 0 for cell in found["cells"])
    # Operations: exactly as many times as many images, about the square of the channels.
    assert found["exponents"]["flop"]["batch"] == pytest.approx(1)
    assert 1.5 < found["exponents"]["flop"]["ch"] < 2.1
    short = growth.grow(["digits", "--device=cpu"], rounds=1, log=quiet, most_seconds=0.0, grid=((2,), (8,), (2, 4)))
    assert [cell.get("left_out") for cell in short["cells"]] == [None, "> 0 s"]
    assert short["exponents"]["step_seconds"] is None
    for report in (found, short):
        tables.print_growth(report)
    shown = capsys.readouterr().out
    assert "step ~ ch^" in shown
    assert "> 0 s" in shown


def test_estimated_operations_are_the_counted_ones(tiny: Callable[..., Config]) -> None:
    """But for the image's gradient, which D's first layers are not asked for, and G's first layer's."""
    config = tiny(train={"d_steps": 1}, regularizers={"orthogonal_G": 0.0})
    counted = ablate.Rig(config).count()
    assert 0.8 < growth._needs(config)["flop"] / counted < 1.2


def test_bytes_of_a_product_and_none_of_a_view() -> None:
    a, b = torch.ones(32, 16), torch.ones(16, 8)
    assert count_traffic(lambda: a @ b) == 4 * (32 * 16 + 16 * 8 + 32 * 8)
    assert count_traffic(lambda: a.t().view(16, 32)) == 0


def test_the_report_of_a_gpu_runs_on_any_device(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["digits", "--model.resolution=8", "--model.ch=4"]
    found = gpu.gpu_report(
        argv, rounds=1, log=quiet, batches=(2, 4), device="cpu", speed=SpeedConfig(channels_last=True)
    )
    assert [step["batch"] for step in found["batches"]] == [2, 4]
    assert found["largest_batch"] == 4
    for step in found["batches"]:
        flop = step["batch"] * found["flop_per_image"]
        rate = found["matrix_flop_per_second"]["float32"]
        assert step["of_matrix_rate"] == pytest.approx(flop / step["step_seconds"] / rate)
        assert step["seconds_of_bytes"] > 0
    assert 0 <= found["watching"]["share"] < 1
    tables.print_gpu(found)
    assert "A monitor at every 10 steps" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ablate", "--growth"], "are two reports"),
        (["--ablate", "cifar11"], "did you mean 'cifar10'"),
        (["--ablate", "--rounds", "0"], "--rounds is 0"),
        (["--ablate", "--only", "channel_last"], "did you mean 'channels_last'"),
        (["--growth", "--rounds", "0"], "--rounds is 0"),
        (["--growth", "digits", "cifar10"], "this report takes one preset"),
        (["digits", "--only", "all"], "need --ablate"),
        (["--gpu-report", "--rounds", "0"], "--rounds is 0"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_no_gpu_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench.main(["--gpu-report"]) == 2
    assert "torch finds no GPU here" in " ".join(capsys.readouterr().err.split())


@pytest.mark.gpu
def test_the_report_of_a_gpu() -> None:
    found = gpu.gpu_report(["digits"], rounds=2, log=quiet, batches=(32, 64))
    assert found["batches"][0]["peak_bytes"] > 0


def test_watching_compares_monitors_on_the_same_networks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(watching, "STEPS_A_ROUND", 2)
    found = watching.watching([*TINY, "--spectra.every=5"], rounds=1, log=quiet)
    kinds = found["kinds"]
    assert list(kinds) == ["no monitor", "certified at every step", "tracked at every step"]
    assert kinds["no monitor"]["inside"] == 0 < kinds["tracked at every step"]["inside"]
    inside = kinds["certified at every step"]["inside"]
    assert found["scheduled_share"] == pytest.approx(inside / 5 / kinds["no monitor"]["seconds"])
    tables.print_watching(found)
    assert "certified at every 5 steps" in " ".join(capsys.readouterr().out.split())
