"""Comparisons: the numbers of each run, seed variation, paired statistics, survival; against closed forms and scipy."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from branches import BEGIN, LEGEND, change, make_run
from pages import drawn

from interventions.cli.main import main
from interventions.compare.collect import Comparison, compare_runs
from interventions.compare.figures.courses import entry_panels
from interventions.compare.outcome import read_outcome
from interventions.compare.page import document
from interventions.compare.report import write_report
from interventions.compare.runs_table import table
from interventions.compare.series import d_loss_series
from interventions.compare.statistics import effects, paired, seed_variation, survival, survival_tests
from interventions.compare.tables import NO_SCORES
from interventions.study.thin import thin_run
from spectra import load
from spectra.record.segments import RecordWriter


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three base runs: control, one other seed, and two changes, one of which collapses; nobody writes into them."""
    tmp_path, found = tmp_path_factory.mktemp("runs"), []
    for number, base in enumerate("abc"):
        found += [
            make_run(tmp_path / f"{base}-control", base, fid=10 + number, loss=1),
            make_run(tmp_path / f"{base}-seed", base, change("seed", value=5), fid=12 + number, loss=1.5),
            make_run(
                tmp_path / f"{base}-freeze", base, change("freeze", network="D"), worse_at=200 + 10 * number, loss=9
            ),
            make_run(tmp_path / f"{base}-r1", base, change("r1", value=10.0), fid=8 + 2 * number, loss=0.5),
        ]
    return found


@pytest.fixture(scope="module")
def compared(runs: list[Path]) -> Comparison:
    return compare_runs(runs)


def test_the_numbers_of_a_run(tmp_path: Path) -> None:
    one = read_outcome(make_run(tmp_path / "run", worse_at=250, loss=2), BEGIN)
    assert one.collapse is not None
    assert one.collapse == 240  # the last step at which all was well
    assert one.survived == one.collapse - BEGIN
    assert (one.last, one.ended, one.collapse_rule) == (400, "finished", "quality_lost")
    numbers = one.numbers
    assert numbers["D_loss_start"] == numbers["D_loss_end"] == numbers["D_loss_peak_mean10"] == pytest.approx(2)
    assert numbers["D_loss_real_end"] == pytest.approx(0.5)
    assert (one.layers["G_sigma0_growth_layer"], numbers["G_sigma0_growth"]) == ("G.linear", pytest.approx(4 / 1.1))
    assert (one.layers["D_sigma0_growth_layer"], numbers["D_sigma0_growth"]) == ("D.out", 1)  # each network its own
    assert numbers["G_sigma_ratio_end"] is None  # no sigma1 recorded
    assert numbers["D_spikes_per_1000"] == 0
    assert numbers["accuracy/D_real"] == 0.75
    assert numbers["D/accuracy/val"] == 0.5
    assert numbers["D/accuracy/train"] is None  # never recorded: not known
    assert numbers["best_fid_raw_median5"] == pytest.approx(10, rel=0.02)
    assert numbers["final_fid_raw_median5"] == pytest.approx(100, rel=0.02)
    assert numbers["last_fid_raw"] == 100 * (1 + 1 / 400)


def test_a_loss_that_is_not_finite_stays_so(tmp_path: Path) -> None:
    one = read_outcome(make_run(tmp_path / "run", loss=math.nan), BEGIN)
    assert math.isnan(one.numbers["D_loss_peak_mean10"])
    assert math.isnan(one.numbers["D_loss_end"])
    assert math.isnan(one.numbers["D_loss_start"])
    assert read_outcome(make_run(tmp_path / "inf", loss=math.inf), BEGIN).numbers["D_loss_peak_mean10"] == math.inf


def test_branches_are_told_from_their_lineage(compared: Comparison) -> None:
    found = compared
    assert [(row.name, row.kind) for row in found.rows[:4]] == [
        ("control", "control"), ("control-seed-5", "seed"), ("freeze D", "branch"), ("r1 10", "branch"),
    ]  # fmt: skip
    assert found.entries() == ["freeze D", "r1 10"]
    frame = table(found).set_index(["base", "entry"])
    assert frame.loc["a at 100", "control"]["censored"]
    assert not frame.loc["a at 100", "freeze D"]["censored"]
    assert frame["delay"].isna().all()  # the control did not collapse: no delay can be given


def test_seed_variation_comes_first_and_is_the_spread_of_unchanged_continuations(compared: Comparison) -> None:
    found = seed_variation(compared).set_index(["base", "measure"])
    row = found.loc["b at 100", "D_loss_end"]
    assert (row["n"], row["of_n"], row["least"], row["most"]) == (2, 2, 1, 1.5)
    assert row["deviation"] == pytest.approx(np.std([1, 1.5], ddof=1))
    assert ("b at 100", "collapse") not in found.index  # none of them collapsed


def test_effects_are_paired_by_base_run(compared: Comparison) -> None:
    from scipy import stats

    found = effects(compared).set_index(["entry", "measure"])
    row = found.loc["r1 10", "final_fid_raw_median5"]
    differences = np.array([8, 10, 12]) * (1 + 1 / 380) - np.array([10, 11, 12]) * (1 + 1 / 380)
    assert row["n"] == 3
    assert row["mean"] == pytest.approx(differences.mean(), abs=0.01)
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (row["low"], row["high"]) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))
    loss = found.loc["freeze D", "D_loss_end"]
    assert (loss["mean"], loss["positive"], loss["p_sign"]) == (pytest.approx(8), 3, pytest.approx(0.25))
    assert (loss["changed"], loss["unchanged"], loss["p"]) == (3, 6, pytest.approx(2 / 3**3))
    assert (loss["p_holm"], loss["least_p"]) == (pytest.approx(4 / 3**3), pytest.approx(4 / 3**3))  # of two entries
    assert loss["bases_needed"] == 4  # 2 * 2 / 3^4 = 0.049
    assert loss["effect_sd"] == pytest.approx((9 - 1.25) / np.std([1, 1.5], ddof=1))


SIGN_TESTS = [
    ([1.0] * 3, 0.25), ([1.0] * 6, 2 / 64), ([1.0, -1.0], 1.0), ([0.0, 0.0], 1.0), ([1.0], 1.0),
    ([1.0] * 4 + [0.0], 0.125),
]  # fmt: skip


@pytest.mark.parametrize(("differences", "p"), SIGN_TESTS)
def test_the_sign_test_is_exact(differences: list[float], p: float) -> None:
    """2 / 2^n where all agree; differences of zero do not count."""
    found = paired(differences)
    assert found["p_sign"] == pytest.approx(p)
    assert math.isnan(found["low"]) == (len(differences) == 1)  # one base run has no interval


def test_survival_is_kaplan_meiers(compared: Comparison) -> None:
    found = compared
    collapses = sorted(row.outcome.survived for row in found.of("freeze D"))
    curve = survival(found, "freeze D")
    assert curve.quantiles.tolist() == collapses
    assert curve.probabilities == pytest.approx([2 / 3, 1 / 3, 0], abs=1e-12)
    assert survival(found, "control").evaluate([50, 300]) == pytest.approx([1, 1])
    tests = survival_tests(found).set_index("entry")
    row = tests.loc["freeze D"]
    assert (row["bases"], row["n"], row["collapsed"], row["n_unchanged"], row["collapsed_unchanged"]) == (3, 3, 3, 6, 0)
    # In each base run the changed one of three is the only one to collapse.
    assert (row["p"], row["method"]) == (pytest.approx(2 / 27), "exact")
    assert row["p_holm"] == row["least_p"] == pytest.approx(4 / 27)  # two entries were tested
    assert math.isnan(tests.loc["r1 10", "p"])  # nobody collapsed: nothing to tell apart


def test_a_collapse_before_the_branch_and_a_delay(tmp_path: Path) -> None:
    paths = [
        make_run(tmp_path / "control", worse_at=200),
        make_run(tmp_path / "later", changes=change("r1", value=1.0), worse_at=300),
    ]
    frame = table(compare_runs(paths)).set_index("entry")
    assert frame.loc["r1 1", "delay"] == 100
    assert effects(compare_runs(paths)).set_index("measure").loc["delay", "mean"] == 100


def test_without_scores_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    paths = [
        make_run(tmp_path / "control", scored=False),
        make_run(tmp_path / "r1", changes=change("r1", value=1.0), scored=False),
    ]
    assert main(["compare", *map(str, paths)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert NO_SCORES in said
    assert "no scores" in said
    assert survival(compare_runs(paths), "r1 1") is None


def test_the_report_is_one_page_that_needs_nothing_else(
    compared: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saved = document.data_uri, iter([True])  # one of them as it is: it takes a second
    monkeypatch.setattr(document, "data_uri", lambda figure: (save if next(saved, False) else drawn)(figure))
    files = write_report(compared, tmp_path / "report")
    assert [path.name for path in files] == ["compare.csv", "seed_variation.csv", "effects.csv", "report.html"]
    page = files[-1].read_text()
    assert page.count("src='data:image/") == 12  # every figure of branches, and a picture of each base run
    tables = [page.index(words) for words in ("Seed variation:", ">Runs<", "Changes against", "Survival: log-rank")]
    assert tables == sorted(tables)
    assert "p (sign)" in page
    assert "<th>n</th>" in page
    assert page.count("data:image/svg+xml;base64,") + len(re.findall("data:image/png;base64,[^']", page)) == 1
    assert len(page) < 500_000


def test_what_is_not_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", str(tmp_path)]) == 2
    assert "is not a run directory" in " ".join(capsys.readouterr().err.split())


def test_an_empty_panel_leaves_the_scale_plain(tmp_path: Path) -> None:
    """A base run of a half-finished plan, of which nothing is recorded yet."""
    found = compare_runs([make_run(tmp_path / base, base, loss=loss) for base, loss in (("a", 1.0), ("b", 4.0))])

    def series(frames: dict, begin: int) -> tuple | None:
        return None if frames["scalars"]["value"].max() > 1 else d_loss_series(frames, begin)

    figure = entry_panels(found, series, "loss", log="where wide")
    assert sum(len(axes.lines) for axes in figure.axes) == 1
    assert {axes.get_yscale() for axes in figure.axes} == {"linear"}


@pytest.mark.parametrize(("every", "smoothed"), [(1, 25), (10, 3), (50, 1)])
def test_the_drawn_loss_is_a_mean_over_steps_however_thin_the_record(every: int, smoothed: int) -> None:
    steps = np.arange(every, 1001, every)
    parts = [pd.DataFrame({"step": steps, "name": f"loss/D_{part}", "value": steps / 2.0}) for part in ("real", "fake")]
    shown, values = d_loss_series({"scalars": pd.concat(parts)}, 0)
    assert shown == steps.tolist()
    assert values[-1] == pytest.approx(np.mean(steps[-smoothed:]))


def test_a_thinned_record_has_the_losses_of_the_whole(tmp_path: Path) -> None:
    """Means over the first and the last ten steps, however few steps between them stay."""
    run = make_run(tmp_path / "run")
    shutil.rmtree(run / "records")
    writer = RecordWriter(run, BEGIN, LEGEND)
    for step in range(BEGIN + 1, 401):
        writer.append(step, {"loss/D_real": 1 / step, "loss/D_fake": step**0.5, "accuracy/D_real": step / 400})
    writer.close()
    thin_run(run, tmp_path / "thin", BEGIN, every=50, spectra_every=100)
    whole, thin = (read_outcome(path, BEGIN).numbers for path in (run, tmp_path / "thin"))
    for name in ("D_loss_start", "D_loss_end", "D_loss_real_end", "D_loss_fake_end", "accuracy/D_real"):
        assert thin[name] == whole[name], name
    assert len(pd.unique(load(tmp_path / "thin")["scalars"]["step"])) == 10 + 5 + 10
