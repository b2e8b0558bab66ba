"""The panels, as TensorBoard's own reader sees them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import nn

import spectra
import spectra.draw.panels
from spectra.draw.charts import charts_of
from spectra.monitor.probes import Frobenius, SingularValues

EVERYTHING = {"scalars": 0, "images": 0, "tensors": 0}
PLAIN = ["singular_values", "frobenius"]


def watch(run: Path, start: int, stop: int, **settings: object) -> spectra.Monitor:
    networks = {"G": nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 4)), "D": nn.Linear(4, 3)}
    settings = {"probes": PLAIN} | settings
    monitor = spectra.Monitor(networks, run, start_step=start, tensorboard=run / "tensorboard" / "spectra", **settings)
    for step in range(start + 1, stop + 1):
        monitor.after_step(step, {"loss/G": 1.0 * step, "accuracy/D_real": 0.5, "gradient_norm/G": 1.0})
    monitor.close()
    return monitor


def read(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard" / "spectra"), size_guidance=EVERYTHING).Reload()


def test_every_chart_has_every_layer_as_a_line(tmp_path: Path) -> None:
    watch(tmp_path, 0, 4, every=2)
    found = read(tmp_path)
    tags = found.Tags()["scalars"]
    (event,) = found.Tensors("custom_scalars__config__")
    plan = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: [t for t in tags if any(re.match(p, t) for p in chart.multiline.tag)] for category in
              plan.category for chart in category.chart}  # fmt: skip
    assert len(charts) == 2 * 5 + 5  # without gradients, their variance has no chart
    shown = charts_of([SingularValues, Frobenius], "spectra")
    assert len(shown) == 5
    for title, series in ((chart.title, chart.quantity) for chart in shown):
        assert charts[f"G {title}"] == [f"{series}/G.0", f"{series}/G.1"]
        assert charts[f"D {title}"] == [f"{series}/D"]
    assert charts["losses"] == ["loss/G"]
    assert charts["accuracies"] == ["accuracy/D_real"]
    assert "gradient_norm/G" in tags  # no probe measures it here, so it is a scalar as any other
    assert not any(tag.startswith(("residual/", "converged/")) for tag in tags)
    frame = spectra.load(tmp_path)["spectra"]
    shown = [(e.step, e.value) for e in found.Scalars("ratio/G.1")]
    recorded = frame[frame.layer == "G.1"]
    assert [step for step, _ in shown] == recorded.step.tolist() == [2, 4]
    assert [value for _, value in shown] == pytest.approx(recorded.ratio.tolist())


def test_pictures_are_drawn_at_the_end_and_rarely_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectra.draw.panels, "FIRST_PICTURE", 2)
    monkeypatch.setattr(spectra.draw.panels, "LEAST_NEW", 3)
    watch(tmp_path, 0, 5, every=1, probes=["frobenius"])  # one row of each picture, which take a second each
    found = read(tmp_path)
    assert [image.step for image in found.Images("2-pictures/spectra/G")] == [2, 5]
    image = found.Images("2-pictures/spectra/D")[-1]
    assert Image.open(io.BytesIO(image.encoded_image_string)).size == (image.width, image.height)


def test_a_resumed_session_replaces_what_came_after(tmp_path: Path) -> None:
    watch(tmp_path, 0, 6, every=1)
    watch(tmp_path, 3, 5, every=1)
    assert [event.step for event in read(tmp_path).Scalars("sigma0/D")] == [1, 2, 3, 4, 5]


def test_long_series_are_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectra.draw.panels, "MOST_POINTS", 10)
    monkeypatch.setattr(spectra.draw.panels.Panels, "draw", lambda self, step: None)
    watch(tmp_path, 0, 60, every=1)
    steps = [event.step for event in read(tmp_path).Scalars("sigma0/D")]
    assert steps[:20] == list(range(1, 21))
    assert 25 <= len(steps) <= 35


def test_scalars_of_any_name_are_shown_and_losses_have_a_chart(tmp_path: Path) -> None:
    monitor = spectra.Monitor({"net": nn.Linear(3, 2)}, tmp_path, every=1, probes=PLAIN, tensorboard=tmp_path / "tb")
    for step in range(1, 4):
        monitor.after_step(step, {"train_loss": 2.0, "lr": 1e-3, "acc@1": 0.5, "grad norm": 1.0, "sigma0": 7.0})
    monitor.log(3, {"val/top5.accuracy": 0.9})
    monitor.close()
    found = EventAccumulator(str(tmp_path / "tb"), size_guidance=EVERYTHING).Reload()
    tags = found.Tags()["scalars"]
    assert {"train_loss", "lr", "acc@1", "grad norm", "sigma0", "val/top5.accuracy", "monitor/seconds"} <= set(tags)
    assert [event.value for event in found.Scalars("lr")] == pytest.approx([1e-3] * 3)
    (event,) = found.Tensors("custom_scalars__config__")
    plan = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    (pattern,) = [c.multiline.tag[0] for one in plan.category for c in one.chart if c.title == "losses"]
    assert [tag for tag in tags if re.match(pattern, tag)] == ["train_loss"]


def test_a_writer_is_shared_its_owner_writes_the_scalars(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path / "tb"))
    monitor = spectra.Monitor({"net": nn.Linear(3, 2)}, tmp_path, every=2, probes=PLAIN, tensorboard=writer)
    for step in range(1, 5):
        monitor.after_step(step, {"loss": 1.0 * step})
        writer.add_scalar("loss", 1.0 * step, step)
    monitor.log(4, {"val/accuracy": 0.5})
    monitor.close()
    writer.add_scalar("after", 1.0, 5)
    writer.close()
    assert len(list((tmp_path / "tb").iterdir())) == 1
    found = EventAccumulator(str(tmp_path / "tb"), size_guidance=EVERYTHING).Reload()
    steps = {tag: [event.step for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    assert steps["sigma0/net"] == steps["ratio/net"] == [2, 4]
    assert (steps["loss"], steps["val/accuracy"], steps["after"]) == ([1, 2, 3, 4], [4], [5])
    assert "monitor/seconds" not in steps
    assert found.Tensors("custom_scalars__config__")


def test_the_first_picture_comes_soon() -> None:
    """A default run measures every 20 steps, some ten steps a second."""
    assert spectra.draw.panels.FIRST_PICTURE == 200
