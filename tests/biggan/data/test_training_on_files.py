"""Whole runs on real image files: a folder, the same packed, resumed from the other; what the user sees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from pictures import write_folder
from safetensors.torch import load_file

from biggan.cli.data import data_main
from biggan.cli.train import train_main
from biggan.data.prefetch import prefetched

SMALL = ["--model.resolution", "8", "--model.classes", "2", "--model.ch_G", "4", "--model.ch_D", "4"]
SMALL += ["--train.batch", "8", "--data.flip", "true"]
SHORT = ["--monitor", "none", "--tensorboard.every", "0", "--samples.every", "0", "--quiet"]


def train(*arguments: object) -> int:
    return train_main([*map(str, arguments), *SHORT])


def last_state(run: Path, step: int = 4) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:08d}.safetensors")


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(tensor.equal(other[name]) for name, tensor in one.items())


def test_a_folder_and_the_same_packed_train_to_the_same_bits(tmp_path: Path) -> None:
    folder, packed = write_folder(tmp_path / "photos", {"ant": 20, "cat": 15}), tmp_path / "packed"
    assert data_main(["prepare", str(folder), "--resolution", "8", "--out", str(packed)]) == 0
    common = [*SMALL, "--data.source", "folder"]
    assert train(*common, "--data.path", folder, "--steps", 4, "--out", tmp_path / "a") == 0
    assert train(*common, "--data.path", packed, "--steps", 4, "--out", tmp_path / "b", "--data.workers", 1) == 0
    assert_same_bits(last_state(tmp_path / "a"), last_state(tmp_path / "b"))
    # Begun on files, gone on with on packed data: where the images lie is no part of the numbers.
    assert train(*common, "--data.path", folder, "--steps", 2, "--out", tmp_path / "c") == 0
    assert train("--resume", tmp_path / "c", "--data.path", packed, "--steps", 4) == 0
    assert_same_bits(last_state(tmp_path / "a"), last_state(tmp_path / "c"))
    # The test sees a difference where there is one.
    assert train(*common, "--data.path", packed, "--steps", 4, "--out", tmp_path / "d", "--data.flip", "false") == 0
    assert not last_state(tmp_path / "a")["D.linear.weight"].equal(last_state(tmp_path / "d")["D.linear.weight"])


def test_a_resume_on_other_data_is_refused_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, other, run = write_folder(tmp_path / "photos", {"ant": 20, "cat": 15}), tmp_path / "other", tmp_path / "run"
    assert train(*SMALL, "--data.source", "folder", "--data.path", folder, "--steps", 2, "--out", run) == 0
    facts = json.loads((run / "run.json").read_text())["data"]
    assert facts["train"] + facts["val"] == 35
    assert str(tmp_path) not in json.dumps(facts)
    shutil.copytree(folder, other)
    resume = ["--resume", run, "--steps", 4, "--data.path", other]
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for damage, words in (
        (lambda: (other / "ant" / "003.png").rename(other / "ant" / "new.png"), "other images by name"),
        (lambda: (other / "ant" / "new.png").rename(other / "cat" / "new.png"), "other images by name, labels"),
        (lambda: (other / "cat" / "new.png").unlink(), "images: "),
    ):
        damage()
        assert train(*resume) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert "the data differs from the data that the run in" in error
        assert words in error
        assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert train(*resume, "--allow-change") == 0
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (resumed,) = [event for event in events if event["event"] == "resumed"]
    now = resumed["data"]
    assert now["train"] + now["val"] == 34
    assert resumed["changes"]["data.images"] == [facts["images"], now["images"]]
    assert json.loads((run / "run.json").read_text())["data"] == now
    assert train("--resume", run, "--steps", 5) == 0  # what was allowed once is the run's data now
    assert train("--resume", run, "--steps", 6, "--data.path", folder) == 2


def test_a_run_from_before_its_data_was_written_down_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train("--model.ch_G", 4, "--model.ch_D", 4, "--train.batch", 8, "--steps", 1, "--out", run) == 0
    facts = json.loads((run / "run.json").read_text())
    data = facts.pop("data")
    assert (data["train"], data["val"], data["classes"]) == (1402, 395, 10)
    (run / "run.json").write_text(json.dumps(facts))
    assert train("--resume", run, "--steps", 2) == 0
    assert json.loads((run / "run.json").read_text())["data"] == data


def test_bad_data_is_one_paragraph_and_no_run_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "photos", {"ant": 20, "cat": 15})
    run = tmp_path / "run"
    for arguments, message in [
        (["cifar10"], "data.path is not set. Give --data.path PATH"),
        (["--data.source", "digits", "--data.path", folder], "data.source is digits"),
        ([*SMALL, "--data.source", "auto", "--data.path", folder, "--model.classes", 3], "Give --model.classes 2"),
        ([*SMALL, "--data.source", "auto", "--data.path", folder, "--train.accumulate", 3], "divides 8"),
    ]:
        assert train(*arguments, "--out", run) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not run.exists()
    for path in folder.glob("*/*.png"):
        path.write_bytes(b"junk")
    assert train(*SMALL, "--data.source", "folder", "--data.path", folder, "--out", run, "--steps", 1) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "images are broken" in message
    assert "not an image in any known format" in message


def test_on_a_cpu_nothing_is_fetched_ahead() -> None:
    batches = iter([])
    assert prefetched(batches, torch.device("cpu")) is batches


def test_rows_are_labelled_by_the_classes_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve folders in their order as text: class 2 is the folder 11, class 10 the folder 8."""
    import biggan.evaluation.pictures.film_strip
    import biggan.evaluation.pictures.grids
    from biggan.cli.sample import sample_main

    folder, run = write_folder(tmp_path / "photos", {str(n): 3 for n in range(1, 13)}), tmp_path / "run"
    data = ["--data.source", "folder", "--data.path", folder]
    assert train(*SMALL, "--model.classes", 12, *data, "--steps", 1, "--out", run) == 0
    names = ["1", "10", "11", "12", "2", "3", "4", "5", "6", "7", "8", "9"]
    facts = json.loads((run / "run.json").read_text())
    assert facts["class_names"] == names
    drawn: list[tuple[list[str], str]] = []
    draw = biggan.evaluation.pictures.grids.draw_grid
    for module in (biggan.evaluation.pictures.grids, biggan.evaluation.pictures.film_strip):
        monkeypatch.setattr(
            module, "draw_grid", lambda p, rows, title: drawn.append((rows, title)) or draw(p, rows, title)
        )
    sample = ["--classes", "2", "10", "--standing-passes", "1", "--out", str(tmp_path / "grid.png")]
    checkpoint = run / "checkpoints" / "step-00000001.safetensors"
    lone = Path(shutil.copy(checkpoint, tmp_path / "lone.safetensors"))
    for place in (run, checkpoint, lone):
        assert sample_main(["--ckpt", str(place), *sample]) == 0
    assert sample_main(["--film-strip", str(run), *sample]) == 0
    assert [rows for rows, _ in drawn[:3]] == [["11", "8"], ["11", "8"], ["class 2", "class 10"]]
    assert drawn[3][1].endswith(": classes 11, 8")
    (run / "run.json").write_text(json.dumps({n: v for n, v in facts.items() if n != "class_names"}))
    assert train("--resume", run, "--steps", 2) == 0  # begun before names were written down
    assert json.loads((run / "run.json").read_text())["class_names"] == names


def test_classes_too_small_for_scores_are_named_before_there_is_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = write_folder(tmp_path / "photos", {"ant": 20, "cat": 1}), tmp_path / "run"
    line = [*SMALL, "--data.path", folder, "--out", run, "--steps", 2]
    assert train(*line, "--eval.every", 2) == 2
    assert "cat (1). Scores by class need two. To train without scores: --eval.every 0" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not run.exists()
    assert train(*line, "--eval.every", 0) == 0
