"""`biggan-eval`: tables, curves, discriminator scores and pictures; what is stored; two processes; what is refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ranks import two_processes
from tiny import TINY as TINY_OPTIONS

from biggan.bench.evaluation import measure_evaluation
from biggan.cli.evaluate import eval_main
from biggan.cli.train import train_main
from biggan.config import to_dict
from biggan.errors import UserError
from biggan.evaluation.bias import bias_warning, fid_bias
from biggan.evaluation.features.registry import Embedded
from biggan.evaluation.generate import LatentSpec, generate
from biggan.evaluation.pictures.grids import load_generator
from biggan.evaluation.registry import SCORES
from biggan.evaluation.scores import compute_scores
from biggan.evaluation.standing import sampling_copy
from biggan.evaluation.table import ScoreRow, ScoreTable
from biggan.evaluation.truncation import Curve, Point, parse_thresholds
from biggan.networks.generator import Generator
from biggan.run.checkpoint import read_checkpoint, save_checkpoint

FEW = ["--samples", "200", "--standing-passes", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with two checkpoints."""
    path = tmp_path_factory.mktemp("runs") / "run"
    assert train_main(["--out", str(path), "--steps=2", "--quiet", "--checkpoint.every=1", *TINY_OPTIONS]) == 0
    return path


def evaluate(run: Path, out: Path, *options: str) -> list[Path]:
    """What it left in `out`."""
    assert eval_main(["--ckpt", str(run), "--out", str(out), *FEW, *options]) == 0
    return sorted(out.iterdir())


def test_the_table_over_checkpoints_has_every_score_with_its_settings(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table, stored = evaluate(run, tmp_path / "out", "--all")
    said = capsys.readouterr().out
    rows = list(csv.DictReader(table.open()))
    assert [row["of"] for row in rows] == [
        "step-00000001.safetensors", "step-00000002.safetensors", "real train", "real val",
    ]  # fmt: skip
    whole = json.loads(stored.read_text())
    assert whole["settings"] == whole["settings"] | {
        "features": "classifier", "reference": "train", "samples": 200, "truncation": None, "standing_passes": 2,
        "weights": "ema",
    }  # fmt: skip
    for row in rows:
        assert row["digest"] == whole["settings"]["digest"]
        assert float(row["spread_share"]) > 0
    for row in whole["rows"]:
        assert set(row["accuracies"]) == {"train", "val", "fake"}
        assert set(row["memorization"]) == {"auc/train_val", "auc/real_fake", "auc/val_fake", "gap/train_val"}
        assert f"{row['memorization']['auc/train_val']:.3f}" in said
        assert np.array(row["leakage"]).sum(axis=1).tolist() == pytest.approx([1.0] * 10)
    assert float(rows[0]["D_auc_train_val"]) == whole["rows"][0]["memorization"]["auc/train_val"]
    assert "averaged weights" in said
    assert "2 standing passes" in said
    assert "real val" in said


def test_a_checkpoint_goes_through_its_standing_passes_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same sampler makes the images that are scored and those that D sees. In training mode are standing passes."""
    forwards: list[bool] = []
    forward = Generator.forward

    def counted(self: Generator, *inputs: torch.Tensor) -> torch.Tensor:
        forwards.append(self.training)
        return forward(self, *inputs)

    monkeypatch.setattr(Generator, "forward", counted)
    evaluate(run, tmp_path / "out", "--all")
    assert forwards.count(True) == 2 * 2  # checkpoints x passes
    assert forwards.count(False) == 2 * 2 * 4  # checkpoints x (scores, D) x blocks of 64 in 200 images


@pytest.mark.slow
def test_other_settings_are_another_table_and_the_same_ones_the_same_numbers(run: Path, tmp_path: Path) -> None:
    one = tmp_path / "out"
    first = {path.name: path.read_bytes() for path in evaluate(run, one)}
    assert {path.name: path.read_bytes() for path in evaluate(run, one)} == first
    for options in (["--raw"], ["--truncation", "0.5", "--reference", "val"]):
        before = len(list(one.iterdir()))
        assert len(evaluate(run, one, *options)) == before + 2


def test_rows_of_other_checkpoints_stay_in_the_table(run: Path, tmp_path: Path) -> None:
    for step in (1, 2):
        evaluate(run / "checkpoints" / f"step-{step:08d}.safetensors", tmp_path / "out")
    stored = json.loads(next((tmp_path / "out").glob("*.json")).read_text())
    assert [row["step"] for row in stored["rows"]] == [1, 2]


@pytest.mark.slow
def test_two_ranks_give_the_same_scores_and_one_prints(run: Path, tmp_path: Path) -> None:
    alone = evaluate(run, tmp_path / "alone")
    command = ["biggan.cli.evaluate", "--ckpt", str(run), "--out", str(tmp_path / "two"), *FEW]
    first, second = two_processes(command)
    assert "averaged weights" in first.stdout
    assert not second.stdout
    for path in alone:
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


def test_the_truncation_curve_has_its_points_plot_and_conclusion(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table, facts, picture = evaluate(run, tmp_path / "out", "--truncation-curve", "0.1:2:3")
    rows = list(csv.DictReader(table.open()))
    assert [row["threshold"] for row in rows] == ["", *(str(t) for t in parse_thresholds("0.1:2:3"))]
    assert {"fid", "is", "saturated", "features", "digest"} <= set(rows[0])
    whole = json.loads(facts.read_text())
    assert set(whole["table2"]) == {"untruncated", "best FID", "IS of the validation images", "best IS"}
    assert Image.open(picture).size[0] > 600
    said = capsys.readouterr().out
    assert "amenable to truncation: " in said
    assert "best FID" in said
    assert ("not reached" in said) == (whole["table2"]["IS of the validation images"] is None)


def points(*rows: tuple[float | None, float, float, float]) -> Curve:
    found = [Point(t, {"fid": fid, "is": is_}, saturated) for t, fid, is_, saturated in rows]
    return Curve(None, found, validation_is=9.0, validation_images=100)  # type: ignore[arg-type]


def test_table_2_and_amenability() -> None:
    curve = points((None, 10, 8, 0.5), (2, 9, 8.2, 0.5), (1, 8, 8.9, 0.52), (0.1, 30, 9.6, 0.53))
    assert {name: point.threshold for name, point in curve.table2().items()} == {
        "untruncated": None, "best FID": 1, "IS of the validation images": 1, "best IS": 0.1,
    }  # fmt: skip
    assert curve.amenable()[0]
    assert not points((None, 10, 8, 0.5), (0.1, 30, 7.5, 0.5)).amenable()[0]  # the IS falls
    assert not points((None, 10, 8, 0.5), (0.1, 30, 9, 0.56)).amenable()[0]  # pixels saturate


def test_an_inception_score_that_the_curve_never_has_is_not_reached() -> None:
    below, above = points((None, 10, 7, 0.5), (1, 8, 8.2, 0.5)), points((None, 10, 9.5, 0.5), (1, 8, 9.9, 0.5))
    for curve in (below, above):
        assert curve.table2()["IS of the validation images"] is None
        assert curve.table2()["best IS"].threshold == 1
    broken = points((None, 10, 8, 0.5), (1, math.nan, math.nan, 0.5))
    assert broken.table2()["best FID"].threshold is None
    assert not broken.amenable()[0]


def test_what_so_few_samples_do_not_tell_is_said_before_they_are_made(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, _ = evaluate(run, tmp_path / "out", "--samples", "15")
    said = capsys.readouterr()
    assert "is will be nan: it takes at least 20 samples, and there are 15" in said.err
    assert "intra_fid will be nan: it takes two samples of each class, and 5 of 10 classes have fewer" in said.err
    row = next(csv.DictReader(table.open()))
    assert (row["is"], row["intra_fid"], row["is_parts"]) == ("nan", "nan", "1")
    assert float(row["fid"]) > 0
    monkeypatch.setattr("biggan.evaluation.evaluator.Evaluator.sampler", None)  # nothing is made in vain
    line = [
        "--ckpt",
        str(run),
        "--out",
        str(tmp_path / "out"),
        *FEW,
        "--samples",
        "15",
        "--truncation-curve",
        "0.1:2:3",
    ]
    assert eval_main(line) == 2
    assert "--truncation-curve needs the IS, which takes at least 20 samples" in capsys.readouterr().err


@pytest.mark.slow
def test_the_bench_measures_sampling_and_evaluation(tiny) -> None:  # noqa: ANN001
    rows = measure_evaluation(tiny(), [64])
    assert [row[""].split(",")[0] for row in rows] == [
        "in training: raw and averaged", "standing statistics", "sampling", "biggan-eval",
    ]  # fmt: skip
    assert all(float(row["seconds"]) > 0 and float(row["CPU seconds"]) > 0 for row in rows)
    assert float(rows[2]["samples/s"].replace(",", "")) > 0


def test_what_d_calls_real(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    stored, picture = evaluate(run, tmp_path / "out", "--discriminator")
    whole = json.loads(stored.read_text())
    assert set(whole["accepted_as_real"]) == {"training", "validation", "generated"}
    assert len(whole["by_class"]) == 10
    assert whole["images"] == {"training": 200, "validation": 200, "generated": 200}
    assert Image.open(picture).size[0] > 600
    said = capsys.readouterr().out
    lines = {line.rsplit("  ", 2)[0].strip(): line.split() for line in said.splitlines()}
    shown = [f"{whole['memorization'][f'{measure}/train_val']:.3f}" for measure in ("auc", "gap")]
    assert lines["training, validation"][-2:] == shown
    assert f"{whole['memorization']['auc/real_fake']:.3f}" in said


def test_pictures_are_drawn(run: Path, tmp_path: Path) -> None:
    names = [path.name.split("-step-")[0] for path in evaluate(run, tmp_path / "out", "--pictures")]
    assert names == ["classes", "interpolations", "neighbours", "truncation-strips"]
    evaluate(run, tmp_path / "out", "--pictures", "--truncation", "0.5")
    assert len(list((tmp_path / "out").iterdir())) == 8  # other settings overwrite nothing
    assert all(min(Image.open(path).size) > 100 for path in (tmp_path / "out").iterdir())


def test_standing_statistics_make_images_independent_of_the_batch(run: Path) -> None:
    """One image at a time, seven, and sixty-four, to 1e-5 of the range."""
    checkpoint = read_checkpoint(run / "checkpoints" / "step-00000002.safetensors")
    network = sampling_copy(load_generator(checkpoint), distribution="normal", passes=3)
    z, y = LatentSpec("normal").block(0, network.z_dim, network.classes)
    whole = torch.cat([network(a, b) for a, b in zip(z.split(64), y.split(64), strict=True)])
    for batch in (1, 7):
        parts = torch.cat([network(a, b) for a, b in zip(z.split(batch), y.split(batch), strict=True)])
        assert float((parts - whole).abs().max()) < 1e-5


def test_an_image_is_a_function_of_its_number(run: Path) -> None:
    checkpoint = read_checkpoint(run / "checkpoints" / "step-00000002.safetensors")
    network = sampling_copy(load_generator(checkpoint), distribution="normal", passes=2)
    whole = {first: images for first, images, _ in generate(network, LatentSpec("normal"), 150)}
    assert [len(images) for images in whole.values()] == [64, 64, 22]
    (first, images, labels), *_ = generate(network, LatentSpec("normal"), 1000, [2])
    assert first == 128
    assert torch.equal(images[:22], whole[128])
    assert labels[:3].tolist() == [8, 9, 0]


def test_few_samples_for_the_features_are_warned_of_with_the_bias(load) -> None:  # noqa: ANN001
    reference = load().reference
    biases = [fid_bias(reference, samples) for samples in (50, 500, 5000)]
    assert biases[0] > 5 * biases[1] > 25 * biases[2] > 0
    warning = bias_warning(reference, 50, "--samples")
    assert warning is not None
    assert f"FID of {biases[0]:.3g} instead of 0" in warning
    assert "singular" in warning
    assert "too high: fid, intra_fid; too low: is, coverage" in warning
    assert bias_warning(reference, 640, "--samples") is None


def test_few_samples_bias_the_scores_that_say_so(load) -> None:  # noqa: ANN001
    """Draws of the real images with a little noise: means over eight sets of 200 against two of 5,000."""
    reference = load().reference
    real, random = reference.subset, torch.Generator().manual_seed(0)

    def drawn(count: int) -> Embedded:
        one = real.take(torch.randint(len(real), (count,), generator=random))
        noise = torch.randn(one.features.shape, generator=random, dtype=torch.float64)
        return Embedded(one.features + 0.3 * one.features.std(dim=0) * noise, one.logits / 3, one.labels)

    def means(count: int, sets: int) -> dict[str, float]:
        found = [compute_scores(drawn(count), reference) for _ in range(sets)]
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}

    few, many = means(200, 8), means(5000, 2)
    for name, score in SCORES.items():
        if score.few == "too high":
            assert few[name] > 1.5 * many[name], name
        elif score.few == "too low":
            assert few[name] < 0.9 * many[name], name
        elif name not in ("kid", "recall"):  # the one is near zero here; the other's balls depend on the number
            assert few[name] == pytest.approx(many[name], rel=0.1), name


def broken(run: Path, tmp_path: Path, change) -> Path:  # noqa: ANN001
    """A copy of the last checkpoint, with some tensors changed or gone."""
    checkpoint = read_checkpoint(run / "checkpoints" / "step-00000002.safetensors")
    path = tmp_path / "step-00000002.safetensors"
    save_checkpoint(path, change(checkpoint.tensors), 2, to_dict(checkpoint.config))
    return path


def refused(capsys: pytest.CaptureFixture, *argv: str) -> str:
    assert eval_main(["--out", "nowhere", *argv]) == 2
    assert not Path("nowhere").exists()
    return " ".join(capsys.readouterr().err.split())


def test_a_checkpoint_without_averaged_weights(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = broken(run, tmp_path, lambda t: {name: v for name, v in t.items() if not name.startswith("G_ema.")})
    message = refused(capsys, "--ckpt", str(path), *FEW)
    assert "holds no averaged weights" in message
    assert "Give --raw" in message


def test_a_checkpoint_with_nan(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = broken(run, tmp_path, lambda t: t | {"G_ema.linear.weight": t["G_ema.linear.weight"] * float("nan")})
    assert "holds NaN or Inf" in refused(capsys, "--ckpt", str(path), *FEW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--truncation", "0"], "threshold above 0"),
        (["--truncation", "-1"], "threshold above 0"),
        (["--truncation-curve", "0:2:5"], "expected 0 < LOW < HIGH"),
        (["--truncation-curve", "0.1-2"], "expected LOW:HIGH:COUNT"),
        (["--truncation-curve", "0.1:2:1"], "at least 2"),
        (["--samples", "1"], "expected at least 2"),
        (["--standing-passes", "0"], "expected at least 1"),
        (["--all", "--discriminator"], "different tasks"),
        (["--features", "inception"], "need a weights file, but"),
        (["--features", "clasifier"], "did you mean 'classifier'"),
    ],
)
def test_bad_options(run: Path, options: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert message in refused(capsys, "--ckpt", str(run), *options)


def test_all_of_a_file_and_of_nothing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "none does not exist" in refused(capsys, "--ckpt", str(run / "checkpoints" / "none"), "--all")
    (tmp_path / "file").touch()
    assert "for a run directory" in refused(capsys, "--ckpt", str(tmp_path / "file"), "--all")
    assert "no checkpoints" in refused(capsys, "--ckpt", str(tmp_path), "--all")


def test_an_unwritable_place(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert eval_main(["--ckpt", str(run), "--out", str(tmp_path / "file"), *FEW]) == 2
    assert "choose another --out" in " ".join(capsys.readouterr().err.split())


def test_nan_scores_are_stored_and_read_back(tmp_path: Path, load) -> None:  # noqa: ANN001
    settings = load().settings("raw", samples=1000, passes=1)
    table = ScoreTable.open(settings, tmp_path)
    table.add(ScoreRow("step-00000001.safetensors", 1, 1000, {"fid": float("nan")}))
    table.save()
    again = ScoreTable.open(settings, tmp_path)
    assert np.isnan(again.rows[0].scores["fid"])
    assert "nan" in again.in_words()


def test_ranks_that_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from biggan.evaluation.shares import share_from_environment

    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="RANK is 2 and WORLD_SIZE 2"):
        share_from_environment()
