"""A probe from outside: one class, one line in a registry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tiny import TINY

import spectra
from biggan.cli.train import train_main
from spectra.cli.commands import main as spectra_main


class LargestEntry(spectra.Probe):
    """The largest entry of each weight matrix."""

    quantities = ("largest_entry",)
    charts = (spectra.Chart("largest entry", "largest_entry", r"$\max |W_{ij}|$", log=False),)

    def measure(self, snapshot: spectra.Snapshot) -> dict:
        """Of the raw weight."""
        return {f"largest_entry/{matrix.name}": matrix.raw().abs().max() for matrix in snapshot.matrices}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(spectra.PROBES, "largest_entry", LargestEntry)
    monkeypatch.setattr("spectra.draw.panels.Panels.draw", lambda self, step: None)  # pictures, which take seconds
    place = tmp_path / "run"
    options = ["--steps=4", "--quiet", "--spectra.every=2", "--spectra.probes=[singular_values,largest_entry]"]
    assert train_main(["--out", str(place), *TINY, *options, "--tensorboard.every=1"]) == 0
    return place


def test_a_probe_of_ones_own_is_recorded_and_drawn(run: Path, capsys: pytest.CaptureFixture) -> None:
    frame = spectra.load(run)["spectra"]
    assert len(frame) == 2 * frame.layer.nunique() > 0
    assert frame.largest_entry.between(0, frame.sigma0, inclusive="right").all()
    assert frame.frobenius.isna().all()  # not among those that were chosen
    assert spectra.load(run)["gradients"].empty

    events = EventAccumulator(str(run / "tensorboard" / run.name), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    (plan,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(plan.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    (pattern,) = charts["D largest entry"]
    lines = [tag for tag in events.Tags()["scalars"] if re.match(pattern, tag)]
    assert lines == [f"largest_entry/{layer}" for layer in frame.layer.unique() if layer.startswith("D.")]
    assert "D Frobenius norm" not in charts

    assert spectra_main(["plot", str(run), "--figure", "charts"]) == 0
    assert capsys.readouterr().out.split()[0] == str(run / "figures" / "figure-charts.png")
    titles = [axes.get_title() for axes in spectra.FIGURES["charts"](spectra.load(run)).axes]
    assert r"D $\max |W_{ij}|$" in titles
    assert r"D $\|W\|_F$" not in titles


def test_an_unknown_probe_is_named_before_a_run_begins(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = ["--out", str(tmp_path / "run"), "--spectra.probes=[singular_value]", *TINY]
    assert train_main(options) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "did you mean 'singular_values'" in said
    assert "class_norms" in said
    assert not (tmp_path / "run").exists()


def test_the_help_names_every_probe(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        train_main(["--help"])
    said = " ".join(capsys.readouterr().out.split()).split("--spectra.probes")[-1]
    assert all(name in said for name in spectra.PROBES)
