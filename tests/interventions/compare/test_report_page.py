"""The page and the terminal: sections in order, every claim once, nothing from outside, for any kind of record."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from branches import change, make_run
from pages import Page, check_page
from rich.console import Console

from biggan.evaluation.pictures.grids import draw_grid, first_panel
from interventions.cli.main import main
from interventions.compare.claims.judge import Verdict
from interventions.compare.collect import Comparison, compare_plan, compare_runs
from interventions.compare.figures.effect_sizes import by_claim, draw_effects, effects_of, seed_effects
from interventions.compare.figures.registry import COMPARISON_FIGURES
from interventions.compare.figures.spectra_panels import chosen_runs
from interventions.compare.origin import duration, origin_of
from interventions.compare.page import document
from interventions.compare.page.claims_section import claims_section
from interventions.compare.page.document import page_of
from interventions.compare.page.film import film_strip_of
from interventions.compare.report import write_report
from interventions.compare.series import base_courses
from interventions.compare.terminal import print_report
from interventions.compare.verdict_words import effect_words, p_words

NAN = math.nan
VERDICT = Verdict(
    claim="10a", text="Doubling G's rate collapses at once.", place="G.1", definition="median below half",
    premise="8 of 8 collapsed", premise_met=True, n=8, measure="survived", unit="steps", effect=-250.0, low=-400.0,
    high=-100.0, p=0.0004, p_holm=0.008, least_p=0.0009, bases_needed=None, verdict="supported", reason="",
    entries=("lr-G-x2",), figure=None, family="claims", scale="",
)  # fmt: skip
VERDICTS = [
    VERDICT,
    replace(VERDICT, claim="13", verdict="contradicted", reason="the other way", unit="ratio", effect=2.5, low=NAN),
    replace(VERDICT, claim="16", n=0, verdict="not run", reason="no run", effect=NAN, p=NAN, p_holm=NAN, least_p=NAN),
    replace(VERDICT, claim="21", n=0, verdict="not testable here", reason="too many images", premise_met=None),
]
HOSTILE = "<script>alert('&\"x')</script>"


def check(text: str) -> Page:
    """A page that needs nothing else, and says nothing about this machine."""
    page = check_page(text)
    assert not re.search(r"(?<![\w<])/(tmp|home|root|work|nowhere)/", page.text)
    return page


@pytest.fixture(autouse=True)
def _quick_pictures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Figures are made, but only slow tests spend the seconds that it takes to save them."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(document, "data_uri", lambda figure: "data:image/png;base64,")


@pytest.fixture
def _few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "COMPARISON_FIGURES", {"Effects": draw_effects})


@pytest.fixture
def plan(whole: Path, tmp_path: Path) -> Path:
    """A copy of `whole`, to be changed."""
    return shutil.copytree(whole, tmp_path / "plan")


@pytest.fixture(scope="module")
def compared(whole: Path) -> Comparison:
    return compare_plan(whole)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of two base runs: control, a further seed, and two entries, of which one collapses in both."""
    folder = tmp_path_factory.mktemp("whole") / "plan"
    folder.mkdir()
    changes = {"control": [], "freeze-D": change("freeze", network="D"), "r1-10": change("r1", value=10.0)}
    jobs, bases = [], []
    for number, base in enumerate(("seed-1", "seed-2")):
        bases.append({"name": base, "checkpoint": f"/nowhere/{base}/x", "digest": base, "step": 100, "run": None})
        for entry, given in changes.items():
            make_run(
                folder / base / entry, base, given, fid=10 + number, last=600,
                worse_at=200 + 10 * number if entry == "freeze-D" else None,
            )  # fmt: skip
            kind = "control" if entry == "control" else "branch"
            jobs.append({"base": base, "entry": entry, "kind": kind, "steps": 500, "changes": [], "seed": None})
        make_run(folder / base / "control-seed-1", base, change("seed", value=5), fid=12 + number, last=600)
        jobs.append({"base": base, "entry": "control", "kind": "seed", "steps": 500, "changes": [], "seed": 1})
    values = {"format": "interventions-plan-2", "plan": "p", "title": "A plan", "bases": bases, "jobs": jobs}
    (folder / "plan.json").write_text(json.dumps(values | {"settings": {}, "figures": [], "notes": []}))
    return folder


def test_the_sections_are_in_order_and_every_claim_is_there_once(compared: Comparison) -> None:
    page = check(page_of(compared, VERDICTS))
    assert page.headings == [
        "Claims", "Effects of the interventions", "Survival", "Base runs", "Spectra and losses",
        "Courses of all entries", "Tables",
    ]  # fmt: skip
    assert [one for one in page.ids if one.startswith("claim-")] == ["claim-10a", "claim-13", "claim-16", "claim-21"]
    assert "4 claims: 1 supported, 1 contradicted, 1 not run, 1 not testable here." in page.text
    assert "over 2 base runs" in page.text
    assert "In all: 8 runs" in page.text
    assert page.tags.index("table") < page.tags.index("img")  # the claims come before any figure
    assert page.tags.count("details") == 6  # claims that no run tests, courses, four tables


def test_a_claim_has_all_its_columns_and_links_to_a_figure_that_is_there() -> None:
    text = claims_section(VERDICTS, ["Effects"])
    page = Page(text)
    for words in ("-250 steps (-400 to -100)", "0.0004", "Holm 0.008", "0.0009", "met", "median below half"):
        assert words in page.text
    assert text.count("href='#figure-effects'") == 2  # of those with runs
    assert "Holm -" not in page.text
    assert "href" not in claims_section(VERDICTS)
    assert "✓ supported" in page.text  # by symbol and word
    assert claims_section([]) == "<p>No claim was judged.</p>"


@pytest.mark.parametrize(
    ("unit", "values", "words"),
    [
        ("ratio", (2.5, 1.2, 3.0), "x2.5 (x1.2 to x3)"),
        ("ratio", (2.5, NAN, NAN), "x2.5"),
        ("steps", (1250.0, -20.0, math.inf), "+1,250 steps (-20 to +∞)"),
        ("share", (0.5, 0.2, 0.8), "50 % (20 % to 80 %)"),
        ("difference", (-0.125, -0.2, 0.0), "-0.125 (-0.2 to 0)"),
        ("difference", (NAN, NAN, NAN), "-"),
    ],
)
def test_an_effect_is_told_in_its_own_unit(unit: str, values: tuple[float, float, float], words: str) -> None:
    effect, low, high = values
    told = effect_words(replace(VERDICT, unit=unit, effect=effect, low=low, high=high))
    assert told.replace("\N{MULTIPLICATION SIGN}", "x") == words
    assert (p_words(NAN), p_words(0.04999), p_words(1e-6)) == ("-", "0.05", "< 0.0001")


@pytest.mark.usefixtures("_few_figures")
def test_hostile_names_are_text(plan: Path) -> None:
    values = json.loads((plan / "plan.json").read_text())
    values["title"] = HOSTILE
    for job in values["jobs"]:
        job["entry"] = job["entry"].replace("r1-10", "<b>&")
    (plan / "plan.json").write_text(json.dumps(values))
    for base in ("seed-1", "seed-2"):
        (plan / base / "r1-10").rename(plan / base / "<b>&")
    hostile = replace(VERDICT, text=HOSTILE, reason=HOSTILE, definition=HOSTILE, premise=HOSTILE, verdict=HOSTILE)
    page = check(page_of(compare_plan(plan), [hostile]))
    assert page.tags.count("script") == 1  # the page's own
    assert HOSTILE in page.text


@pytest.mark.slow
def test_a_thinned_plan_has_a_page(tmp_path: Path) -> None:
    """The recorded one: no configuration, no samples, no base runs, names of an earlier format."""
    recorded = Path(__file__).parents[3] / "notebooks/data/example-plan"
    written = write_report(compare_plan(recorded), tmp_path)
    text = written[-1].read_text()
    page = check(text)
    assert [path.name for path in written] == [
        "compare.csv", "seed_variation.csv", "effects.csv", "claims.csv", "report.html",
    ]  # fmt: skip
    assert len(text) < 2_000_000
    assert "records are thinned" in page.text
    assert "Where this comes from" in page.headings


def test_a_plan_without_scores_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [
        make_run(tmp_path / name, changes=given, scored=False)
        for name, given in {"control": [], "r1": change("r1", value=1.0)}.items()
    ]
    found = compare_runs(paths)
    drawn = {title: draw(found) for title, draw in COMPARISON_FIGURES.items()}
    monkeypatch.setattr(document, "COMPARISON_FIGURES", {name: lambda _, one=one: one for name, one in drawn.items()})
    page = check(page_of(found))
    assert "no scores recorded" in page.text
    assert page.headings == ["Spectra and losses", "Courses of all entries", "Tables"]
    assert "Figure 20: singular values of every layer" in page.text
    assert "Figure 27: Frobenius norms, losses and gradients" in page.text
    assert [title for title, figure in drawn.items() if figure is None] == [
        "Effects", "Survival", "Survival, from scratch", "Base runs", "Figure 20, from scratch",
        "Figure 27, from scratch", "FID", "Spread within a class",
    ]  # fmt: skip


def test_nothing_recorded_draws_nothing() -> None:
    assert all(draw(Comparison([])) is None for draw in COMPARISON_FIGURES.values())


@pytest.mark.usefixtures("_few_figures")
@pytest.mark.parametrize("broken", ["nan", pytest.param("inf", marks=pytest.mark.slow)])
def test_runs_that_broke_are_shown(plan: Path, broken: str) -> None:
    path = plan / "seed-1" / "r1-10" / "events.jsonl"
    lines = []
    for line in path.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "evaluation" and event["step"] > 300:
            event["scores"] = {"fid": broken, "is": broken, "spread_share": broken}
        lines.append(json.dumps(event))
    path.write_text("\n".join(lines) + "\n")
    found = compare_plan(plan)
    page = check(page_of(found, VERDICTS))
    assert broken in page.text
    assert effects_of(found, "r1-10").ratios[0] == math.inf
    labels = draw_effects(found).legends[0].get_texts()
    assert "not finite" in [text.get_text() for text in labels]


def test_effects_tell_bounds_from_differences(compared: Comparison) -> None:
    (one, other) = effects_of(compared, "freeze-D").steps
    assert (one[1], other[1]) == ("<", "<")  # only the entry collapsed
    assert one[0] < 0
    assert effects_of(compared, "r1-10").steps == [(0.0, "=")] * 2  # neither did
    assert [round(ratio, 2) for ratio in seed_effects(compared, "control").ratios] == [1.2, 1.18]
    assert by_claim(["mine", "freeze-D", "lr-G-x2"]) == ["lr-G-x2", "freeze-D", "mine"]


def test_chosen_runs_span_what_happened(compared: Comparison) -> None:
    assert [row.name for row in chosen_runs(compared, scratch=False)] == ["control", "freeze-D", "r1-10"]
    assert chosen_runs(compared, scratch=True) == []


def test_samples_before_and_after_are_cut_from_the_grids(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", last=600, worse_at=300)
    (run / "samples").mkdir()
    names, images = ["a", "long name"], {}
    for step in (150, 250, 590):
        images[step] = np.full((2, 3, 8, 8, 3), step % 251, dtype=np.uint8)
        images[step][1, 2, 0, 7] = 255
        panels = {"generator": images[step], "its average (EMA)": 255 - images[step]}
        draw_grid(panels, names, f"step {step}").save(run / "samples" / f"step-{step:08d}.png")
    found = first_panel(run / "samples/step-00000150.png", names, 3, 8)
    assert found is not None
    assert np.array_equal(found, images[150])
    assert first_panel(run / "samples/step-00000150.png", [*names, "c"], 3, 8) is None
    assert first_panel(run / "samples/none.png", names, 3, 8) is None

    comparison = compare_runs([run])
    (course,) = base_courses(comparison)
    assert course.onset is not None
    assert 250 <= course.onset <= 310
    assert film_strip_of(course) == []  # the configuration is not recorded
    (run / "config.yaml").write_text("model: {resolution: 8, classes: 2}\nsamples: {classes: 2, per_class: 3}\n")
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"class_names": names}))
    stills = film_strip_of(course)
    assert [(one.when, one.step) for one in stills] == [
        ("best FID", 150), ("before the onset", 250), ("after the fall", 590),
    ]  # fmt: skip
    assert "FID" in stills[0].scores
    text = page_of(comparison)
    assert all(f"<b>{words}</b>" in text for words in ("best FID", "before the onset", "after the fall"))
    check(text)
    shutil.rmtree(run / "samples")
    assert film_strip_of(course) == []


@pytest.mark.usefixtures("_few_figures")
def test_the_origin_is_what_is_recorded(plan: Path) -> None:
    facts = {"commit": "0123456789abcdef", "dirty": True, "torch": "2.0", "started": "2026-01-02T03:04:05+0000"}
    for path in plan.glob("*/*/run.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    events = plan / "seed-1" / "control" / "events.jsonl"
    timed = [{"event": "started", "step": 0, "time": 1000.0}, {"event": "finished", "step": 600, "time": 1600.0}]
    events.write_text(events.read_text() + "".join(json.dumps(event) + "\n" for event in timed))
    launch = {
        "event": "launched",
        "time": 10.0,
        "command": ["biggan-intervene", "--ckpt", "/home/me/run", "--out=/x/y"],
    }
    (plan / "launches.jsonl").write_text(json.dumps(launch) + "\n")
    origin = origin_of(compare_plan(plan))
    assert ("commit", "0123456789ab (with local changes)") in origin.facts
    assert origin.seconds == 600
    assert origin.commands == ["biggan-intervene --ckpt run --out=y"]
    assert [duration(seconds) for seconds in (42, 720, 12240)] == ["42 s", "12 min", "3.4 h"]
    check(page_of(compare_plan(plan), VERDICTS))


def test_the_terminal_prints_the_claims_and_where_the_page_is(
    compared: Comparison, capsys: pytest.CaptureFixture
) -> None:
    print_report(compared, VERDICTS, page=Path("out/report.html"))
    said = capsys.readouterr().out
    assert "10a Doubling G's rate" in said
    assert "contradicted" in said
    assert "16 Doubling" not in said  # no run of it
    assert "page: out/report.html" in said
    assert "Seed variation" not in said
    assert len(said.splitlines()) < 20
    print_report(compared, VERDICTS, everything=True)
    assert "Seed variation" in capsys.readouterr().out


def test_loose_runs_print_tables_that_fit_unless_all_is_asked(
    whole: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interventions.compare.terminal.MOST_ROWS", 3)
    paths = [str(path) for path in sorted(whole.glob("*/*")) if path.is_dir()]
    assert main(["compare", *paths]) == 0
    few = capsys.readouterr().out
    assert "more rows; --all prints them" in few
    assert main(["compare", *paths, "--all"]) == 0
    everything = capsys.readouterr().out
    assert len(everything.splitlines()) > len(few.splitlines())
    assert "more rows" not in everything


def test_the_terminal_shows_few_columns_whole_unless_all_is_asked(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of three base runs on 120 columns: no word is cut off or broken, and what is left out is said."""
    monkeypatch.setattr("interventions.compare.terminal.report_console", lambda: Console(width=120))
    study = Path(__file__).parents[3] / "notebooks" / "data" / "small-study"
    names = ("control", "control-seed-1", "lr-D-half", "freeze-D")
    paths = [str(study / base / name) for base in ("seed-0", "seed-1", "seed-2") for name in names]
    assert main(["compare", *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= 120
    assert "…" not in said
    runs = [line for line in lines if line.startswith("│") and "none by 1500" in line]
    assert len(runs) == 9
    assert all(line.count("│") == 10 and " at 1000 " in line for line in runs)
    for line in (line for line in lines if line.startswith("│")):
        assert all(cell.strip() for cell in line.strip("│").split("│")), "a cell goes on in a second line"
    assert "D's loss, start" not in said
    assert "least p (Holm)" not in said
    assert "--all prints every measure and row; --out DIR writes all as compare.csv" in said
    assert main(["compare", *paths[:4]]) == 0
    assert "base run ┃" not in capsys.readouterr().out
    assert main(["compare", *paths, "--all"]) == 0
    everything = capsys.readouterr().out
    assert "…" not in everything
    assert "least p: the smallest" in everything
    assert "accu" in everything
