"""Numbers of one record: by network, robust, missing where steps are missing, NaN where NaN was recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from interventions.compare.collect import Row, notes_on
from interventions.compare.measures import STORED
from interventions.compare.outcome import read_outcome
from interventions.study.thin import thin_run
from spectra.record.segments import RecordWriter

BEGIN, LAST = 100, 400
SHAPES = {"G.linear": [8, 4], "G.conv": [8, 8], "D.conv": [8, 8], "D.out": [1, 8]}
LEGEND = {
    "layers": {
        name: {"network": name[0], "kind": "linear", "depth": 0, "shape": shape} for name, shape in SHAPES.items()
    },
    "parameters": {},
    "frames": {"sigma0": "spectra", "sigma1": "spectra", "sigma_estimate": "spectra"},
}


def losses(step: int) -> dict[str, float]:
    """A D loss of 1, but for one bad batch of 31 and a peak of 20 steps at 3."""
    loss = 31.0 if step == 150 else 3.0 if 200 < step <= 220 else 1.0
    return {"loss/D_real": loss / 4, "loss/D_fake": 3 * loss / 4, "accuracy/D_real": 0.5}


def sigmas(step: int) -> dict[str, float]:
    """G shrinks by a quarter and rises to 0.9 of what it was, D doubles; a matrix of one row has no sigma1."""
    G = 0.75 if step == 200 else 0.9 if step > 200 else 1.0
    values = {"sigma0/G.linear": 4 * G, "sigma1/G.linear": 1.0, "sigma0/G.conv": 2.0, "sigma1/G.conv": 1.0}
    D = 2.0 if step > 300 else 1.0
    return values | {"sigma0/D.conv": D, "sigma1/D.conv": 0.25, "sigma0/D.out": 1.5 * D, "sigma_estimate/D.out": 1.0}


def write(
    path: Path, *, every: int = 1, measured: int = 20, of: Callable[[int], dict] = losses,
    spectra: Callable[[int], dict] = sigmas, ended: str = "finished",
) -> Path:  # fmt: skip
    """A branch with its losses every so many steps, spectra every 20, and an FID of 5 every 50."""
    writer = RecordWriter(path, BEGIN, LEGEND)
    for step in range(BEGIN + 1, LAST + 1):
        values = of(step) if step % every == 0 else {}
        values |= spectra(step) if step % measured == 0 else {"sigma_estimate/D.out": 1.0}
        if step % 60 == 0:
            values |= {"D/auc/train_val": step / LAST, "D/gap/train_val": math.inf, "D/accuracy/val": 0.5}
        writer.append(step, values)
    writer.close()
    events = [
        {"event": "evaluation", "step": step, "time": 0, "weights": "raw", "scores": {"fid": 5.0, "spread_share": 0.8}}
        for step in range(BEGIN + 50, LAST + 1, 50)
    ]
    events.append({"event": ended, "step": LAST, "time": 0})
    (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (path / "run.json").write_text("{}")
    return path


def test_growth_and_shape_are_each_networks_own(tmp_path: Path) -> None:
    """The largest of both networks together would be D's, whatever a change did to G."""
    found = read_outcome(write(tmp_path / "run"), BEGIN)
    assert (found.numbers["G_sigma0_growth"], found.layers["G_sigma0_growth_layer"]) == (1, "G.linear")
    assert (found.numbers["D_sigma0_growth"], found.layers["D_sigma0_growth_layer"]) == (2, "D.conv")
    assert found.numbers["G_sigma_ratio_end"] == pytest.approx(3.6)
    assert (found.numbers["D_sigma_ratio_end"], found.layers["D_sigma_ratio_end_layer"]) == (8, "D.conv")
    assert found.numbers["D_spikes_per_1000"] == 0


def test_what_d_remembers_is_that_of_the_last_measurement(tmp_path: Path) -> None:
    found = read_outcome(write(tmp_path / "run"), BEGIN).numbers
    assert (found["D/auc/train_val"], found["D/gap/train_val"], found["D/accuracy/val"]) == (0.9, math.inf, 0.5)
    assert found["D/auc/real_fake"] is None


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_sigma_that_breaks_is_no_growth_of_the_others(tmp_path: Path, broken: float) -> None:
    def breaks(step: int) -> dict[str, float]:
        return sigmas(step) | ({"sigma0/G.conv": broken} if step > 300 else {})

    found = read_outcome(write(tmp_path / "run", spectra=breaks), BEGIN)
    assert not math.isfinite(found.numbers["G_sigma0_growth"])
    assert found.layers["G_sigma0_growth_layer"] == "G.conv"
    assert not math.isfinite(found.numbers["G_sigma_ratio_end"])
    assert found.numbers["D_sigma0_growth"] == 2
    in_d = write(tmp_path / "d", spectra=lambda step: sigmas(step) | ({"sigma0/D.out": broken} if step > 300 else {}))
    assert math.isnan(read_outcome(in_d, BEGIN).numbers["D_spikes_per_1000"])


def test_the_peak_of_the_loss_is_no_single_batch(tmp_path: Path) -> None:
    """The bad batch of 31 weighs as much as ten steps at 4; the peak itself is known."""
    found = read_outcome(write(tmp_path / "run"), BEGIN).numbers
    assert found["D_loss_peak_mean10"] == pytest.approx((31 + 9) / 10)
    calm = write(tmp_path / "calm", of=lambda step: losses(220 if 200 < step <= 220 else 400))
    assert read_outcome(calm, BEGIN).numbers["D_loss_peak_mean10"] == pytest.approx(3)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_one_loss_that_is_not_finite_is_counted(tmp_path: Path, broken: float) -> None:
    run = write(tmp_path / "run", of=lambda step: losses(step) | ({"loss/D_fake": broken} if step == 105 else {}))
    found = read_outcome(run, BEGIN).numbers
    assert not math.isfinite(found["D_loss_peak_mean10"])
    assert not math.isfinite(found["D_loss_start"])
    assert found["D_loss_end"] == 1


NEED_EVERY_STEP = ("D_loss_start", "D_loss_end", "D_loss_peak_mean10", "D_spikes_per_1000", "accuracy/D_real")


def test_a_record_with_gaps_refuses_what_needs_every_step(tmp_path: Path) -> None:
    found = read_outcome(write(tmp_path / "run", every=10), BEGIN)
    assert found.record == "thinned"
    assert [found.numbers[name] for name in NEED_EVERY_STEP] == [None] * 5
    assert found.numbers["D_sigma0_growth"] == 2
    notes = notes_on([Row("a", "r1", "branch", found)])
    assert any(note.startswith("records are thinned (a/r1): the peak of D's loss and D's spikes") for note in notes)


def test_a_whole_record_is_not_taken_for_a_thinned_one(tmp_path: Path) -> None:
    """Spectra now and then, and no losses at all, are no gaps."""
    assert read_outcome(write(tmp_path / "run", measured=60), BEGIN).record == "whole"
    unlogged = read_outcome(write(tmp_path / "unlogged", of=lambda step: {}), BEGIN)
    assert (unlogged.record, unlogged.numbers["D_loss_peak_mean10"]) == ("whole", None)
    assert unlogged.numbers["D_spikes_per_1000"] == 0


def test_thinning_stores_the_numbers_of_the_whole(tmp_path: Path) -> None:
    whole = read_outcome(write(tmp_path / "run"), BEGIN)
    thin_run(tmp_path / "run", tmp_path / "thin", BEGIN, every=50, spectra_every=100)
    thin = read_outcome(tmp_path / "thin", BEGIN)
    assert (thin.numbers, thin.layers) == (whole.numbers, whole.layers)
    assert thin.numbers["D_loss_peak_mean10"] == pytest.approx(4)
    assert (whole.record, thin.record) == ("whole", "thinned, numbers of the whole")
    notes = notes_on([Row("a", "r1", "branch", thin)])
    assert any("are computed from the whole records" in note for note in notes)
    thin_run(tmp_path / "thin", tmp_path / "thinner", BEGIN, every=100, spectra_every=300)
    assert read_outcome(tmp_path / "thinner", BEGIN).numbers == whole.numbers
    # From another step on, or where the file is damaged, only what is left can be read.
    assert read_outcome(tmp_path / "thin", 150).numbers["D_loss_peak_mean10"] is None
    (tmp_path / "thin" / STORED).write_text('{"begin": 100, "numbers"')
    left = read_outcome(tmp_path / "thin", BEGIN)
    assert (left.record, left.numbers["D_loss_peak_mean10"], left.numbers["D_loss_end"]) == ("thinned", None, 1)
    assert left.numbers["D_sigma_ratio_end"] == 8  # sigma1 stays too


def test_what_is_not_finite_is_stored_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "run", of=lambda step: losses(step) | ({"loss/D_fake": math.inf} if step == 205 else {}))
    thin_run(tmp_path / "run", tmp_path / "thin", BEGIN, every=50, spectra_every=100)
    assert read_outcome(tmp_path / "thin", BEGIN).numbers["D_loss_peak_mean10"] == math.inf
    assert '"inf"' in (tmp_path / "thin" / STORED).read_text()


def test_a_run_that_was_stopped_has_no_score_of_before(tmp_path: Path) -> None:
    """Its last evaluation came before its numbers broke, and was good."""
    found = read_outcome(write(tmp_path / "run", ended="stopped"), BEGIN).numbers
    assert all(math.isnan(found[name]) for name in ("last_fid_raw", "best_fid_raw_median5", "last_spread_raw"))
    assert found["D/auc/val_fake"] is None  # never recorded
    assert found["D_loss_start"] == 1
