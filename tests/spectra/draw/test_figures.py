"""The figures and the commands that draw and list a run."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import spectra
import spectra.draw.figures
from spectra.cli.commands import main
from spectra.draw.charts import Chart
from spectra.draw.figures import depth_colours, draw_layers, network_rows, sharpest_jump
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


def labelled_ticks(axes: Axes) -> list[str]:
    """The labels at the y axis that are in sight."""
    low, high = sorted(axes.get_ylim())
    return [
        label.get_text()
        for place, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        if low <= place <= high and label.get_text()
    ]


def test_every_figure_is_drawn_with_every_layer(run: Path) -> None:
    frames = spectra.load(run)
    panels = {"3": 2, "20": 6, "27": 4, "29": 2, "charts": 10}
    for name, draw in spectra.FIGURES.items():
        figure = draw(frames)
        FigureCanvasAgg(figure).draw()
        shown = [axes for axes in figure.axes if axes.get_title() or axes.get_title(loc="left")]
        assert len(shown) == panels[name]
        for axes in shown:
            if "sigma" in axes.get_title() or "W" in axes.get_title():
                labels = [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]
                assert labels in [[f"{network}.blocks.{i}" for i in range(4)] for network in "GD"]  # as in the frames
                assert axes.get_yscale() == "log"
            assert len(labelled_ticks(axes)) >= 3
            marks = [text.get_text().strip() for text in axes.texts]
            low, high = axes.get_xlim()
            assert marks == [m for m, step in (("changed", 200), ("alarm", 310)) if low <= step <= high]
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
    assert sharpest_jump(frame[(frame.network == "D") & (frame.step <= 300)]) is None, "it may be an outlier"
    assert sharpest_jump(frame[(frame.network == "D") & (frame.step <= 310)]) == 300
    assert sharpest_jump(frame[frame.network == "G"]) is None, "sigma_0 grows smoothly"


def test_the_jump_is_one_that_the_detector_finds(tmp_path: Path) -> None:
    """The highest of three, one of which goes on where the record ends; a steeper start of the run is none."""
    steps = np.arange(1, 101)
    rng = np.random.default_rng(0)
    small = 0.5 * np.exp(-(steps - 40) / 5) * (steps >= 40)
    high = 0.9 * np.exp(-(steps - 60) / 5) * (steps >= 60)
    logs = {"a": small + high, "b": 2 * np.minimum(steps / 5, 1.0), "c": 0.4 * (steps >= 97)}
    rows = [
        {"step": 10 * step, "layer": name, "sigma0": math.exp(value + 0.01 * rng.standard_normal())}
        for name, values in logs.items()
        for step, value in zip(steps, values, strict=True)
    ]
    frame = pd.DataFrame(rows)
    assert sharpest_jump(frame) == 600
    assert sharpest_jump(frame[(frame.layer != "a") | (frame.step < 590)]) == 400
    assert sharpest_jump(frame[frame.layer != "a"]) == 970
    assert sharpest_jump(frame[frame.layer == "b"]) is None


def test_figure_29_of_a_smooth_run_draws_no_jump(run: Path) -> None:
    frames = spectra.load(run)
    jump = spectra.FIGURES["29"](frames)
    assert jump.get_suptitle() == "the sharpest jump of D's spectra, at step 300 (the paper's Figure 29)"
    rows = frames["spectra"]
    smooth = spectra.FIGURES["29"]({**frames, "spectra": rows[rows.step < 300]})
    assert smooth.get_suptitle() == "no jump stands out in D's spectra (the paper's Figure 29)"
    assert not [line for axes in smooth.axes for line in axes.lines if line.get_linewidth() == 3]


def test_the_commands(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["plot", str(run), "--figure", "3", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert said == f"{tmp_path}/out/figure-3.png  first singular values of every layer (Figure 3)\n"
    assert (tmp_path / "out" / "figure-3.png").read_bytes().startswith(b"\x89PNG")
    assert main(["events", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "310", "200"]
    assert lines[1].endswith("alarm        reason=sigma0")
    assert main(["events", str(run), "--all"]) == 0
    assert "(superseded)" in capsys.readouterr().out
    for wrong in (["plot", str(tmp_path / "no")], ["events", str(tmp_path / "no")]):
        assert main(wrong) == 2
        assert "no does not exist" in capsys.readouterr().err
    assert main(["plot", str(run), "--out", str(tmp_path / "all")]) == 0
    titles = [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert len(titles) == len(spectra.FIGURES)
    assert titles[3] == "the sharpest jump of D's spectra, at step 300 (Figure 29)"
    assert all(titles)
    writer = RecordWriter(tmp_path / "scalars", 0)
    writer.append(1, {"loss": 1.0})
    writer.close()
    assert main(["plot", str(tmp_path / "scalars")]) == 2
    assert "has no spectra" in capsys.readouterr().err


def test_checkpoints_and_evaluations_are_only_counted(run: Path, capsys: pytest.CaptureFixture) -> None:
    routine = [
        {"event": "checkpoint", "step": 100, "path": "checkpoints/step-00000100.safetensors"},
        {"event": "evaluation", "step": 100, "weights": "raw", "scores": {"fid": 3.0}},
        {"event": "evaluation", "step": 100, "weights": "ema", "scores": {"fid": 2.0}},
        {"event": "evaluation", "step": 390, "weights": "ema", "scores": {"fid": 2.0}, "superseded": True},
    ]
    path = run / "events.jsonl"
    whole = path.read_text().splitlines()[:-1]
    path.write_text("".join(f"{line}\n" for line in [*whole, *map(json.dumps, routine)]))
    assert main(["events", str(run)]) == 0
    said = capsys.readouterr()
    assert "checkpoint" not in said.out
    assert "evaluation" not in said.out
    assert "alarm" in said.out
    assert "1 checkpoint and 2 evaluations not shown: --all shows them" in said.err
    assert main(["events", str(run), "--all"]) == 0
    said = capsys.readouterr()
    assert said.out.count("evaluation") == 3
    assert "fid=3" in said.out
    assert "not shown" not in said.err
    path.write_text(whole[0])
    assert main(["events", str(run)]) == 0
    assert "not shown" not in capsys.readouterr().err


def test_a_branch_is_marked_where_it_left_its_parent(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_titles_say_which_run_it_is(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {}

    def keep(frames):  # noqa: ANN001, ANN202
        return drawn.setdefault("figure", spectra.draw.figures.figure_20(frames))

    monkeypatch.setitem(spectra.draw.figures.FIGURES, "20", keep)
    mine = run.rename(run.with_name("my $run$"))
    spectra.draw_figures(mine, ["20"])
    title = drawn["figure"].get_suptitle()
    assert title == r"my \$run\$: largest three singular values of every layer (the paper's Figure 20)"


def test_lines_can_be_told_apart_by_more_than_a_shade(run: Path) -> None:
    frames = spectra.load(run)
    many = pd.concat(
        [
            frames["spectra"][frames["spectra"].network == "G"].assign(layer=f"G.{i}.{j}", depth=4 * i + j)
            for i in range(4)
            for j in range(3)
        ]
    )
    many = many[~many.duplicated(["step", "layer"])]
    axes = Figure().subplots()
    draw_layers(axes, many, Chart("sigma_0", "sigma0"))
    lines = [line for line in axes.lines if line.get_marker() != "x"]
    assert len(lines) == 12
    patterns = [line._dash_pattern for line in lines]
    assert all(one != other for one, other in itertools.pairwise(patterns))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_figure_27_has_no_hole(count: int, run: Path) -> None:
    frames = spectra.load(run)
    named = [frames["spectra"][frames["spectra"].network == "D"].assign(network=f"N{i}") for i in range(count)]
    figure = spectra.FIGURES["27"]({**frames, "spectra": pd.concat(named)})
    spans = [axes.get_subplotspec() for axes in figure.axes]
    cells = sum(len(one.rowspan) * len(one.colspan) for one in spans if one is not None)
    assert cells == 4 * math.ceil((count + 2) / 2)
    assert all(axes.lines or axes.get_legend() for axes in figure.axes)


def test_an_unknown_network_or_quantity_is_an_error_with_the_nearest(run: Path) -> None:
    frames = spectra.load(run)
    with pytest.raises(ValueError, match=r"no network called 'g' was recorded.*Recorded: G, D"):
        network_rows(frames, ["g"], ["sigma0"])
    with pytest.raises(ValueError, match="no quantity called 'sigma_0' was recorded; did you mean 'sigma0'"):
        network_rows(frames, ["G"], ["sigma_0"])


def test_a_panel_of_what_was_not_recorded_says_so(run: Path) -> None:
    frames = spectra.load(run)
    frames["spectra"] = frames["spectra"].assign(
        frobenius=frames["spectra"].frobenius.where(frames["spectra"].network == "D")
    )
    first, *_ = spectra.FIGURES["27"](frames).axes
    assert [text.get_text() for text in first.texts][:1] == ["not recorded"]
