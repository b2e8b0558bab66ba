"""The page of a run: whole by itself, for any kind of record, and with the right layers on top."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pages import check_page

import spectra
from spectra.cli.commands import main
from spectra.detect.finding import Finding
from spectra.draw.overlay import draw_overlay, run_names
from spectra.record.segments import RecordWriter
from spectra.report import document
from spectra.report.document import run_page, write_run_page
from spectra.report.layers import growths, noteworthy_layers

NAN = math.nan
HOSTILE = ("net.$\\frac{$", "net.<b>&\"'", "net.a_{b")


@pytest.fixture(autouse=True)
def _quick_pictures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Figures are made, but only slow tests spend the seconds that it takes to save them."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(document, "picture_of", lambda figure: "data:image/png;base64,")


def record(
    run: Path, layers: list[str], *, steps: int = 12, spoil: object = None, gradients: bool = True, scalars: bool = True
) -> Path:
    """sigma_0 of layer i grows by a factor of 1 + i / 10 over the run; `spoil(step, values)` changes the numbers."""
    places = {
        name: {"network": name.split(".")[0], "kind": "linear", "depth": i, "shape": [4, 9]}
        for i, name in enumerate(layers)
    }
    parameters = {f"{name}.weight": {"network": name.split(".")[0], "depth": i} for i, name in enumerate(layers)}
    frames = dict.fromkeys(("sigma0", "sigma1", "frobenius", "converged"), "spectra")
    frames |= dict.fromkeys(("gradient_norm", "relative_update"), "gradients")
    writer = RecordWriter(run, 0, {"layers": places, "parameters": parameters, "frames": frames})
    for step in range(1, steps + 1):
        share = (step - 1) / max(steps - 1, 1)
        values: dict[str, float] = {}
        for i, name in enumerate(layers):
            values |= {f"sigma0/{name}": (1 + i / 10) ** share, f"sigma1/{name}": 0.9, f"converged/{name}": 1.0}
            values[f"frobenius/{name}"] = 2 * (1 + i / 10) ** share
            if gradients:
                values |= {f"gradient_norm/{name}.weight": 0.1, f"relative_update/{name}.weight": 1e-3}
        if scalars:
            values |= {"train_loss": 2.0 - share, "lr": 1e-3}
        if spoil:
            spoil(10 * step, values)
        writer.append(10 * step, values)
    writer.close()
    return run


def test_the_sections_are_in_order_and_the_page_needs_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = record(tmp_path / "mine", [f"net.{i}" for i in range(4)])
    events = [{"event": "started", "step": 0}, {"event": "spike", "step": 50, "onset": 40, "height": 1.5}]
    events += [{"event": "checkpoint", "step": step, "path": "x"} for step in range(10, 60, 10)]
    events += [{"event": "alarm", "step": 110, "cause": "explosion", "superseded": True}]
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (run / "run.json").write_text(json.dumps({"torch": "2.6", "device": "x", "parent": None, "threads": 1}))
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"{run}/report.html\n"
    page = check_page((run / "report.html").read_text())
    assert page.headings == [
        "What to look at", "Spectra", "What grew most", "Gradients", "Losses and other scalars", "Events",
        "Where this comes from",
    ]  # fmt: skip
    assert "Recorded up to step 120. 4 weight matrices of 1 network measured at 12 steps, from 10 to 120." in page.text
    assert "Events: 1 spike." in page.text
    assert "5 checkpoints" in page.text
    assert str(tmp_path) not in page.text
    assert page.tags.count("img") == 5
    assert main(["report", str(run), "--out", str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").read_text() == (run / "report.html").read_text()
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_a_record_with_nan_inf_and_odd_names_has_a_page(tmp_path: Path) -> None:
    def spoil(step: int, values: dict[str, float]) -> None:
        if step > 60:
            values |= {f"sigma0/{HOSTILE[0]}": NAN, f"gradient_norm/{HOSTILE[1]}.weight": math.inf, "train_loss": NAN}
            values["$\\frac{$ <i>"] = -math.inf

    run = record(tmp_path / "<b>$x_{", list(HOSTILE), spoil=spoil)
    (run / "events.jsonl").write_text(json.dumps({"event": "<script>", "step": 5, "why": "<b>"}) + "\n")
    page = check_page(run_page(run))
    assert page.tags.count("script") == 1  # the page's own
    assert "b" in page.tags
    assert "<script>" in page.text
    assert all(name in page.text for name in HOSTILE)
    found = noteworthy_layers(spectra.load(run))
    assert [one.growth.layer for one in found][:2] == [HOSTILE[0], HOSTILE[1]]
    assert found[0].reasons[0] == "sigma_0 is NaN at step 70 (6 of 12 measurements)"
    assert found[1].reasons[0] == "its gradient is infinite at step 70 (6 of 12 measurements)"


@pytest.mark.parametrize("kind", ["one layer", "one step", "no gradients", "scalars alone", "events alone", "all NaN"])
def test_records_that_lack_things_have_a_page(tmp_path: Path, kind: str) -> None:
    def all_nan(step: int, values: dict[str, float]) -> None:
        values |= {name: 0.0 if name.startswith("converged") else NAN for name in values}

    run = tmp_path / "run"
    if kind == "events alone":
        run.mkdir()
        (run / "events.jsonl").write_text(json.dumps({"event": "started", "step": 0}) + "\n")
    elif kind == "scalars alone":
        record(run, [])
    else:
        layers = ["net"] if kind == "one layer" else ["net.0", "net.1"]
        record(run, layers, steps=1 if kind == "one step" else 5, gradients=kind != "no gradients",
               spoil=all_nan if kind == "all NaN" else None, scalars=kind != "one layer")  # fmt: skip
    page = check_page(run_page(run))
    assert ("Spectra" in page.headings) == (kind not in ("scalars alone", "events alone", "all NaN"))
    assert ("sigma_0 is NaN at step 10 (5 of 5 measurements)" in page.text) == (kind == "all NaN")
    assert ("Gradients" in page.headings) == (kind in ("one layer", "one step"))
    assert "Pictures" not in page.headings
    assert page.headings[-1] == "Where this comes from"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["net.$\\frac{$", "net.<b>&", "net.a_{b", "$"])
def test_odd_names_are_drawn(tmp_path: Path, name: str) -> None:
    def spoil(step: int, values: dict[str, float]) -> None:
        values[f"loss {name}"] = NAN if step > 60 else 1.0

    check_page(run_page(record(tmp_path, [name], spoil=spoil)))


@pytest.mark.slow
def test_two_hundred_layers_have_a_page(tmp_path: Path) -> None:
    run = record(tmp_path, [f"net.{'very.long.' * 4}{i}" for i in range(200)])
    text = run_page(run)
    page = check_page(text)
    assert len(text) < 3_000_000
    assert "The other 190 layers" in page.text


def test_a_picture_of_the_run_is_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    run = record(tmp_path, ["net"])
    (run / "samples").mkdir()
    for step in (1, 2):
        Image.new("RGB", (4, 4)).save(run / "samples" / f"step-{step}.png")
    page = check_page(run_page(run))
    assert "samples/step-2.png, the newest." in page.text
    monkeypatch.setattr(document, "MOST_PICTURE", 10)
    assert "Pictures" not in check_page(run_page(run)).headings


def test_growth_is_from_the_first_to_the_last_finite_value() -> None:
    """By hand: 1 to 4 over the run; the last fifth begins at step 82."""
    rows = [(10, NAN), (20, 1.0), (80, 2.0), (100, 4.0)]
    frame = pd.DataFrame([{"step": s, "layer": "net.a", "network": "net", "kind": "linear", "out": 2, "rest": 3,
                           "sigma0": v} for s, v in rows])  # fmt: skip
    (found,) = growths(frame)
    assert (found.first, found.last, found.factor) == (1.0, 4.0, 4.0)
    assert math.isnan(found.late_factor)  # of one value
    rows[2] = (84, 2.0)
    frame["step"] = [s for s, _ in rows]
    assert growths(frame)[0].late_factor == 2.0


def test_layers_are_ranked_by_named_reasons(tmp_path: Path) -> None:
    names = [f"net.{i}" for i in range(15)]

    def spoil(step: int, values: dict[str, float]) -> None:
        values |= {"sigma0/net.1": 5.0, "gradient_norm/net.2.weight": 0.0, "gradient_norm/net.3.weight": 100.0}
        values |= {"converged/net.5": 0.0, "sigma0/net.6": 1.0 if step < 60 else 0.25}

    run = record(tmp_path, names, spoil=spoil)
    spike = {"height": math.e, "peak": 50, "onset": 40, "decay": 10}
    findings = [
        Finding("explosion", 90, 70, {"network": "net", "layers": {"net.4": {}}}),
        Finding("spike", 60, 40, {"height": math.e, "layers": {"net.0": spike}}),
    ]
    found = {one.growth.layer: one for one in noteworthy_layers(spectra.load(run), findings, most=15)}
    assert next(iter(found)) == "net.4"
    reasons = {
        "net.4": "an explosion of sigma_0 from step 70 on",
        "net.0": "a spike of 2.72 times at step 50",
        "net.1": "one direction dominates: sigma_0 is 5.56 times sigma_1",
        "net.2": "its gradient is 0 at the end",
        "net.3": "its gradient is a factor of 1,000 above the median layer's",
        "net.5": "the singular values did not converge in 12 of 12 measurements",
        "net.6": "sigma_0 shrank to 0.25 of what it was",
        "net.14": "sigma_0 grew 2.4 times (the median layer of net: 1.7)",
    }
    for layer, reason in reasons.items():
        assert reason in found[layer].reasons
    assert found["net.0"].score == pytest.approx(20)  # 10, and 10 for a factor of e
    assert found["net.14"].score == pytest.approx(20 * math.log(2.4 / 1.7) + 30 * late(2.4, 1.7))
    assert "net.7" not in found  # the median layer
    scores = [one.score for one in found.values()]
    assert scores == sorted(scores, reverse=True)
    assert len(noteworthy_layers(spectra.load(run), findings)) == 10


def late(factor: float, usual: float) -> float:
    """What `record` makes of a factor over 12 steps from step 100 on, where the last fifth begins."""
    return math.log(factor) * 2 / 11 - math.log(usual) * 2 / 11 if math.log(factor) * 2 / 11 > 0.1 else 0.0


def test_runs_are_laid_over_one_another(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = [record(tmp_path / name / "run", ["net.0", "net.1"]) for name in ("a", "b")]
    other = record(tmp_path / "$\\frac{$", ["net.1"], scalars=False)
    runs.append(other)
    assert run_names(runs) == ["a/run", "b/run", f"{tmp_path.name}/$\\frac{{$"]
    figure = draw_overlay({name: spectra.load(run) for name, run in zip("abc", runs, strict=True)})
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["train_loss", "lr", "net: largest sigma_0", "net.1: sigma_0", "net.0: sigma_0"]
    lines = {axes.get_title(): [line.get_label() for line in axes.lines] for axes in figure.axes}
    assert lines["train_loss"] == ["a", "b"]
    assert lines["net.1: sigma_0"] == ["a", "b", "c"]
    (largest,) = [axes for axes in figure.axes if axes.get_title() == "net: largest sigma_0"]
    frame = spectra.load(runs[0])["spectra"]
    assert largest.lines[0].get_ydata() == pytest.approx(frame.groupby("step").sigma0.max().to_numpy())
    assert len({line.get_color() for line in largest.lines}) == 3
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
    assert main(["plot", *map(str, runs), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/out/figure-overlay.png\n"
    assert main(["plot", str(runs[0]), str(runs[0])]) == 2
    assert "given twice" in capsys.readouterr().err
    assert main(["plot", *map(str, runs), "--figure", "3"]) == 2
    assert "is of one run" in capsys.readouterr().err


def test_many_runs_differ_in_colour_or_line(tmp_path: Path) -> None:
    frames = spectra.load(record(tmp_path, ["net"]))
    figure = draw_overlay({f"run {i}": frames for i in range(20)})
    axes = next(axes for axes in figure.axes if axes.get_title() == "train_loss")
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 20


def test_events_of_a_run_that_has_none(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = record(tmp_path / "run", ["net"])
    assert main(["events", str(run)]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "has no events" in said.err
    (tmp_path / "empty").mkdir()
    assert main(["events", str(tmp_path / "empty")]) == 2
    assert "not a run directory" in capsys.readouterr().err


def test_a_page_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = record(tmp_path, ["net"])
    monkeypatch.setattr(document, "run_page", lambda run: "old")
    assert write_run_page(run).read_text() == "old"
    monkeypatch.setattr(document, "run_page", lambda run: "\ud800")  # cannot be encoded
    with pytest.raises(UnicodeEncodeError):
        write_run_page(run)
    assert [path.name for path in run.glob("report*")] == ["report.html"]
    assert (run / "report.html").read_text() == "old"
    assert np.all(spectra.load(run)["spectra"].sigma0 == 1)
