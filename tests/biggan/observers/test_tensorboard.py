"""What TensorBoard's own reader finds of a run: one run of its name, with what one looks at first in front."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.custom_scalar import layout_pb2
from tiny import TINY

from biggan.cli.train import train_main
from biggan.observers.tensorboard import tag_of

EVERYTHING = {"scalars": 0, "images": 0, "tensors": 0}
OPTIONS = [
    *TINY, "--tensorboard.every=1", "--spectra.every=2", "--samples.every=4", "--samples.early=[0,1]",
    "--samples.standing_passes=1", "--samples.per_class=1", "--checkpoint.every=2", "--quiet",
    "--spectra.probes=[frobenius]", "--discriminator_view.every=2",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectra.draw.panels.Panels.draw", lambda self, step: None)  # they take seconds


def read(run: Path) -> EventAccumulator:
    found = EventMultiplexer(size_guidance=EVERYTHING).AddRunsFromDirectory(str(run / "tensorboard")).Reload()
    (name,) = found.Runs()
    assert name == run.name
    return found.GetAccumulator(name)


def test_one_run_of_the_runs_name_opens_on_losses_and_fid(tmp_path: Path) -> None:
    run = tmp_path / "my run"
    assert train_main(["--out", str(run), "--steps=4", "--eval.every=2", *OPTIONS]) == 0
    found = read(run)
    tags = found.Tags()["scalars"]
    groups = list(dict.fromkeys(tag.partition("/")[0] for tag in sorted([*tags, *found.Tags()["images"]])))
    assert groups[:2] == ["1-training", "2-pictures"]
    assert {"1-training/FID_raw", "1-training/FID_average", "D/accuracy/val"} <= set(tags)
    for tag in tags:  # nothing is written twice
        steps = [event.step for event in found.Scalars(tag)]
        assert len(steps) == len(set(steps)), tag
    assert [event.step for event in found.Scalars("1-training/loss_G")] == [1, 2, 3, 4]
    assert [event.step for event in found.Scalars("frobenius/G.linear")] == [2, 4]
    assert [event.step for event in found.Images("2-pictures/samples")] == [0, 1, 4]
    (event,) = found.Tensors("custom_scalars__config__")
    plan = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert [category.title for category in plan.category] == ["training", "G: spectra", "D: spectra"]
    charts = {chart.title: chart.multiline.tag[0] for chart in plan.category[0].chart}
    assert list(charts)[:2] == ["losses", "FID"]
    lines = {title: [tag for tag in tags if re.match(pattern, tag)] for title, pattern in charts.items()}
    assert lines["losses"] == ["1-training/loss_D_real", "1-training/loss_D_fake", "1-training/loss_G"]
    assert lines["FID"] == ["1-training/FID_raw", "1-training/FID_average"]


def test_a_resumed_run_shows_each_step_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train_main(["--out", str(run), "--steps=3", *OPTIONS]) == 0
    (run / "checkpoints" / "step-00000003.safetensors").unlink()  # as if it had been killed
    assert train_main(["--resume", str(run), "--steps=5", "--quiet"]) == 0
    found = read(run)
    assert [event.step for event in found.Scalars("1-training/loss_G")] == [1, 2, 3, 4, 5]
    assert [event.step for event in found.Scalars("frobenius/D.linear")] == [2, 4]


def test_names_of_scalars() -> None:
    names = {"loss/D_real": "1-training/loss_D_real", "eval/ema/fid": "1-training/FID_average"}
    assert {name: tag_of(name) for name in names} == names
    assert all(tag_of(name) == name for name in ("eval/raw/kid", "lossless", "sigma0/G.linear"))
