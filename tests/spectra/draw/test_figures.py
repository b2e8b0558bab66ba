"""The figures and the commands that draw and list a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import spectra
from spectra.cli.commands import main
from spectra.draw.figures import depth_colours, sharpest_jump
from spectra.record.segments import RecordWriter
from spectra.report.words import event_words

LAYERS = [f"{network}.blocks.{i}" for network in "GD" for i in range(4)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A record of 40 measurements with a jump of D.blocks.2 at step 300, a NaN, events, and a torn line."""
    places = {name: {"network": name[0], "kind": "conv2d", "depth": int(name[-1]), "shape": [4, 9]} for name in LAYERS}
    quantities = ("sigma0", "sigma1", "sigma2", "frobenius")
    writer = RecordWriter(tmp_path, 0, {"layers": places, "frames": dict.fromkeys(quantities, "spectra")})
    for step in range(10, 410, 10):
        values = {f"{q}/{name}": 1 + step / 400 + i for name in LAYERS for i, q in enumerate(quantities)}
        if step >= 300:
            values["sigma0/D.blocks.2"] *= 3
        if step > 350:
            values["sigma0/G.blocks.1"] = math.nan
        scalars = {"loss/G": -1.0, "loss/D_real": 0.5, "gradient_variance/G": 2.0 * step, "gradient_variance/D": 1.0}
        writer.append(step, values | scalars)
    writer.close()
    events = [
        {"event": "started", "step": 0, "time": 1.0},
        {"event": "alarm", "step": 310, "time": 2.0, "reason": "sigma0"},
        {"event": "alarm", "step": 390, "time": 2.0, "superseded": True},
        {"event": "resumed", "step": 200, "time": 3.0, "changes": {"optim.G.lr": [1, 2]}},
    ]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"event": "fin')
    return tmp_path


def test_every_figure_is_drawn_with_every_layer(run: Path) -> None:
    frames = spectra.load(run)
    panels = {"3": 2, "20": 6, "27": 4, "29": 2, "charts": 10}
    for name, draw in spectra.FIGURES.items():
        figure = draw(frames)
        shown = [axes for axes in figure.axes if axes.get_title()]
        assert len(shown) == panels[name]
        for axes in shown:
            if "sigma" in axes.get_title() or "W" in axes.get_title():
                labels = [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]
                assert labels == [f"blocks.{i}" for i in range(4)]
                assert axes.get_yscale() == "log"
            marks = [text.get_text().strip() for text in axes.texts]
            low, high = axes.get_xlim()
            assert marks == [m for m, step in (("alarm", 310), ("changed", 200)) if low <= step <= high]
        legends = [legend for axes in figure.axes if (legend := axes.get_legend())]
        assert legends
    (g, *_), (not_finite, *_) = [axes.lines for axes in spectra.FIGURES["3"](frames).axes if axes.get_title()][:2], [0]
    crosses = [line for line in g if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [360]
    assert not_finite == 0


def test_colours_go_from_red_to_violet() -> None:
    colours = np.array(depth_colours(9))
    assert colours[0].argmax() == 0
    assert colours[0][1:].max() < 0.1
    assert colours[-1].argmax() == 2
    assert colours[-1][0] > 0.5 > colours[-1][1]
    assert len({tuple(c) for c in colours}) == 9


def test_events_are_toldin_words() -> None:
    event = {
        "weights": "raw",
        "scores": {"fid": 24.140790831, "is": "nan"},
        "settings": {"seed": 0},
        "digest": "a" * 64,
    }
    assert list(event_words(event, whole=False)) == ["weights=raw", "fid=24.14", "is=nan", "digest=" + "a" * 12]
    assert list(event_words(event, whole=True))[3:] == ["settings={'seed': 0}", "digest=" + "a" * 64]


def test_the_sharpest_jump_is_found(run: Path) -> None:
    frame = spectra.load(run)["spectra"]
    assert sharpest_jump(frame[frame.network == "D"]) == 300
    assert sharpest_jump(frame[frame.step == 10]) is None


def test_the_commands(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["plot", str(run), "--figure", "3", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/out/figure-3.png\n"
    assert (tmp_path / "out" / "figure-3.png").read_bytes().startswith(b"\x89PNG")
    assert main(["events", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "310", "200"]
    assert lines[1].endswith("alarm        reason=sigma0")
    assert main(["events", str(run), "--all"]) == 0
    assert "(superseded)" in capsys.readouterr().out
    for wrong in (["plot", str(tmp_path / "no")], ["events", str(tmp_path / "no")]):
        assert main(wrong) == 2
        assert "run directory" in capsys.readouterr().err
    writer = RecordWriter(tmp_path / "scalars", 0)
    writer.append(1, {"loss": 1.0})
    writer.close()
    assert main(["plot", str(tmp_path / "scalars")]) == 2
    assert "has no spectra" in capsys.readouterr().err


def test_a_branch_is_marked_where_it_left_its_parent(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import spectra.draw.figures

    drawn = {}
    monkeypatch.setitem(
        spectra.draw.figures.FIGURES,
        "3",
        lambda frames: drawn.setdefault("figure", spectra.draw.figures.figure_3(frames)),
    )
    facts = {"parent": {"path": "x", "digest": "y", "step": 120}, "changes": [{"optim.D.lr": 1e-3}]}
    (run / "run.json").write_text(json.dumps(facts))
    spectra.draw.figures.draw_figures(run, ["3"])
    marks = [(text.get_position()[0], text.get_text().strip()) for text in drawn["figure"].axes[0].texts]
    assert (120, "changed") in marks
    assert (310, "alarm") in marks
