"""The command line: who wins, what is refused and how, exit codes."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import TINY

from biggan.cli.options import parse
from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from biggan.config import Config, fields, from_dict
from biggan.config.presets import preset_names
from biggan.errors import UserError
from biggan.run.checkpoint import checkpoint_paths


def test_precedence_wherever_options_stand(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("seed: 1\nmodel: {ch: 11, z_dim: 22}\noptim: {G: {lr: 1e-4}}\n")
    two.write_text("seed: 2\n")
    config = parse(["--model.z_dim", "33", "cifar10", "--config", str(one), "--config", str(two)]).config()
    assert (config.model.z_dim, config.seed, config.model.ch) == (33, 2, 11)  # option, second file, first file
    assert config.optim.G.lr == 1e-4
    assert config.model.resolution == 32  # the preset's
    assert config.train.accumulate == Config().train.accumulate  # the default's
    assert parse(["--config", str(two), "--config", str(one)]).config().seed == 1


def test_ch_is_both_widths_whatever_an_earlier_level_gave_one_of(tmp_path: Path) -> None:
    """The default preset gives ch_G and ch_D."""
    config = parse(["--model.ch", "32"]).config()
    assert (config.model.width_G, config.model.width_D) == (32, 32)
    config = parse(["--model.ch", "32", "--model.ch_D", "4"]).config()
    assert (config.model.width_G, config.model.width_D) == (32, 4)
    (tmp_path / "wide.yaml").write_text("model: {ch: 24}\n")
    config = parse(["--config", str(tmp_path / "wide.yaml"), "--model.ch_G", "6"]).config()
    assert (config.model.width_G, config.model.width_D) == (6, 24)


def test_options_are_checked_against_the_run_that_is_resumed(tmp_path: Path) -> None:
    """64 micro-batches do not go into the default preset's batch, but into this run's."""
    base = parse(["--train.batch", "128"]).config()
    assert parse(["--train.accumulate", "64"]).config(base).train.accumulate == 64


def test_every_field_is_an_option_with_a_help_text(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name, _ in fields():
        entry = re.search(rf"^  --{re.escape(name)}[ ,].*(?:\n    .*)*", text, re.MULTILINE)
        assert entry, name
        assert len(entry[0].split()) > 4, f"{name} has no help text"


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys
from biggan.cli.train import train_main
try:
    train_main(["--help"])
except SystemExit:
    pass
heavy = {"torch", "pandas", "pyarrow", "cv2", "matplotlib", "scipy", "tensorboard"} & set(sys.modules)
sys.exit(f"loaded: {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_parses_and_is_the_papers(name: str) -> None:
    config = parse([name]).config()
    if name.startswith("table1-row"):
        batch = [256, 512, 1024, 2048, 2048, 2048, 2048, 2048, 2048][int(name[-1]) - 1]
        assert config.train.batch == batch
        assert config.model.ch == (96 if name[-1] in "5678" else 64)
        assert (config.regularizers.orthogonal_G > 0) == (name[-1] in "89")
    if name in ("table1-row1", "sagan128", "sngan128"):
        assert (config.optim.G.lr, config.optim.D.lr, config.train.d_steps) == (1e-4, 4e-4, 1)
        assert (config.model.shared_embedding, config.model.skip_z, config.model.z_dim) == (False, False, 128)
        sngan = name == "sngan128"
        assert config.model.spectral_norm_G == (not sngan)
        assert config.model.conv1_width_D == ("in" if sngan else "out")
        assert config.model.attention_G == config.model.attention_D == ([] if sngan else None)
    if name.startswith(("imagenet", "table1")) and name != "table1-row1":
        deep = name in ("imagenet256-deep", "imagenet512-deep")
        assert (config.optim.G.lr, config.optim.D.lr) == ((2.5e-5, 2.5e-5) if deep else (5e-5, 2e-4))
        assert (config.train.d_steps, config.ema.decay) == (2, 0.9999)


def test_dry_run_prints_one_json_object_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "run"
    assert train_main(["imagenet128", "--dry-run", "--json", "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["parameters"]["G"] == pytest.approx(70.4e6, rel=1e-3)
    assert printed["parameters"]["D"] == pytest.approx(88.0e6, rel=1e-3)
    assert printed["memory_bytes"] > 16 * (70.4e6 + 88.0e6)
    assert printed["config"]["train"]["batch"] == 2048
    assert not out.exists()
    assert train_main(["--dry-run", "--train.accumulate", "4", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "parameters: G" in text
    assert "BatchNorm normalizes each micro-batch of 8" in text
    assert not out.exists()


BAD = [
    (["--modle.ch", "3"], "unknown option '--modle.ch'; did you mean '--model.ch'?"),
    (["digit"], "unknown preset 'digit'; did you mean 'digits'?"),
    (["digits", "cifar10"], "unexpected argument 'cifar10'"),
    (["--model.ch", "wide"], "model.ch is 'wide', expected a whole number"),
    (["--steps", "2.5"], "steps is '2.5', expected a whole number"),
    (["--optim.G.lr", "fast"], "optim.G.lr is 'fast', expected a number"),
    (["--model.skip_z", "maybe"], "model.skip_z is 'maybe', expected true or false"),
    (["--train.freeze", "both"], "train.freeze is 'both', expected one of 'none', 'G', 'D'"),
    (["--optim.G.lr", "-1"], "optim.G.lr is -1.0, expected at least 0"),
    (["--ema.decay", "1.5"], "ema.decay is 1.5, expected in [0.0, 1.0]"),
    (["--train.accumulate", "5"], "Choose a train.accumulate that divides 32"),
    (["--speed.compile", "true", "--train.recompute", "true"], "Turn one of them off"),
    (["--config", "nowhere.yaml"], "cannot read --config nowhere.yaml"),
    (["--resume", "nowhere"], "nowhere does not exist"),
    (["--data.source", "digit"], "unknown data.source 'digit'; did you mean 'digits'?"),
    (["--data.train_per_class", "500"], "Give at most 13"),
    (["--model.classes", "7"], "Give --model.classes 10"),
    (["--model.resolution", "24"], "has tables for"),
    (["--loss.name", "hing"], "did you mean 'hinge'"),
    (["--latents.distribution", "norml"], "did you mean 'normal'"),
    (["--json"], "--json needs --dry-run"),
    (["--processes", "0"], "--processes needs --dry-run"),
    (["--dry-run", "--processes", "0"], "--processes is 0, expected at least 1"),
    (["--allow-change"], "--allow-change needs --resume RUN"),
    (["--step", "5"], "unknown option '--step'; did you mean '--steps'?"),
    (
        ["--model.attention_G", "16"],
        "model.attention_G is '16', expected a list of whole numbers such as [32,64], or null",
    ),
    (["--device", "mps"], "PyTorch has no float64 on Apple's GPUs (mps)"),
    (["--model.ch_G", "x"], "model.ch_G is 'x', expected a whole number, or null"),
]


@pytest.mark.parametrize(("argv", "words"), BAD)
def test_bad_input_is_one_clear_paragraph_and_leaves_nothing(
    argv: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train_main(argv) == 2
    error = capsys.readouterr().err
    assert words in " ".join(error.split())
    assert error.count("\n\n") == 0
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_yaml_key_names_the_file_and_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model:\n  chh: 3\n")
    assert train_main(["--config", str(path), "--out", str(tmp_path / "run")]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"unknown field in {path}: 'model.chh'; did you mean 'model.ch'?" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"resume: nowhere\n", "unknown field"),
        (b"model: {ch: [3\n", "this is not YAML"),
        (b"\xff\xfe\x00", "cannot read --config"),
        (b"- 3\n", "in "),
        (b"base: cifar10\n", "only presets may have `base`. Omit it, and give the preset cifar10 on the command line"),
        (b"steps: many\n", "steps is 'many', expected a whole number"),
    ],
)
def test_yaml_that_is_no_configuration(
    content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    assert train_main(["--config", str(path), "--out", str(tmp_path / "run")]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    path.write_text("# nothing yet\n")
    assert parse(["--config", str(path)]).config() == parse([]).config()


def test_a_taken_directory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    assert train_main(["--out", str(tmp_path), *TINY]) == 2
    assert "exists and is not empty" in " ".join(capsys.readouterr().err.split())
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_a_run_directory_is_what_it_says(finished: Path) -> None:
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["device"] == "cpu"
    assert set(config) == {field.split(".")[0] for field, _ in fields()}
    facts = json.loads((finished / "run.json").read_text())
    assert facts["parent"] is None
    assert facts["torch"]
    events = [json.loads(line) for line in (finished / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["started", *["checkpoint"] * 3, "finished"]


def test_non_finite_numbers_are_recorded_and_reported(tmp_path: Path) -> None:
    """A rate that is absurd without any normalization of D's weights."""
    from spectra.record.segments import read_record

    bad = ["--optim.D.lr=1e30", "--model.spectral_norm_D=false", "--steps=6", "--quiet", *TINY]
    run = tmp_path / "goes-on"
    assert train_main(["--out", str(run), *bad]) == 0
    record = read_record(run)
    losses = record[record.name == "loss/D_fake"].value
    assert len(losses) == 6
    assert not losses.map(lambda value: value - value == 0).all()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("non_finite") == 1
    stops = tmp_path / "stops"
    assert train_main(["--out", str(stops), "--train.on_non_finite=stop", *bad]) == 1
    (event,) = [event for event in events if event["event"] == "non_finite"]
    assert [p.name for p in checkpoint_paths(stops)] == [f"step-{event['step']:08d}.safetensors"]


def test_the_summary_names_commands_that_work(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Also for a law that cannot be truncated, without a monitor, and with a space in the path."""
    from interventions.cli.main import main as intervene_main
    from spectra.cli.commands import main as spectra_main

    def commands() -> dict[str, list[str]]:
        """The lines below "next:" as a shell reads them: program -> arguments."""
        lines = map(shlex.split, capsys.readouterr().out.split("next:\n")[1].splitlines())
        return {program: arguments for program, *arguments in lines}

    run = tmp_path / "my run"
    assert train_main(["--out", str(run), "--steps=1", "--latents.distribution=signs", "--monitor=none", *TINY]) == 0
    found = commands()
    assert list(found) == ["biggan-sample", "biggan-eval", "spectra"]
    assert found["biggan-eval"] == ["--ckpt", str(checkpoint_paths(run)[-1])]
    options = ["--out", str(tmp_path / "grid.png"), "--standing-passes=1", "--per-class=1"]
    assert sample_main([*found["biggan-sample"], *options]) == 0
    assert spectra_main(found["spectra"]) == 0
    run = tmp_path / "a watched run"
    watched = ["--steps=4", "--spectra.every=1", "--checkpoint.every=2", "--tensorboard.every=1"]
    assert train_main(["--out", str(run), *TINY, *watched]) == 0
    found = commands()
    assert found["tensorboard"] == ["--logdir", str(run / "tensorboard")]
    assert spectra_main([*found["spectra"], "--figure", "3"]) == 0
    assert found["biggan-intervene"] == ["--ckpt", str(run), "--at", "2", "--control", "--steps", "2"]
    assert intervene_main(found["biggan-intervene"]) == 0
    assert "bit for bit" in capsys.readouterr().out


def test_public_names_are_there() -> None:
    import biggan

    assert all(getattr(biggan, name) is not None for name in biggan.__all__)


def test_samples_from_a_checkpoint(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from PIL import Image

    pictures = []
    for extra in ([], ["--raw"], ["--truncation=0.5"], ["--seed=3"], []):
        out = tmp_path / f"{len(pictures)}.png"
        assert (
            sample_main(["--ckpt", str(finished), "--out", str(out), "--per-class=2", "--standing-passes=2", *extra])
            == 0
        )
        assert str(out) in capsys.readouterr().out
        pictures.append(Image.open(out).tobytes())
    assert len(set(pictures)) == 4
    assert pictures[0] == pictures[-1]
    for bad, words in ((["--classes", "12"], "classes are 0 to 9"), (["--truncation=0"], "expected a number above 0")):
        assert sample_main(["--ckpt", str(finished), *bad]) == 2
        assert words in " ".join(capsys.readouterr().err.split())
    assert sample_main(["--ckpt", str(tmp_path / "none.safetensors")]) == 2


def test_configurations_check_themselves() -> None:
    with pytest.raises(UserError, match=r"did you mean 'seed'"):
        from_dict({"sead": 3})


@pytest.mark.parametrize(
    ("module", "name", "line", "words"),
    [
        (
            "biggan.cli.sample",
            "sample_main",
            "--ckpt=x --truncaton 1",
            "unknown option '--truncaton'; did you mean '--trunc",
        ),
        (
            "biggan.cli.evaluate",
            "eval_main",
            "--ckpt x extra --samplse=5",
            "unknown option '--samplse'; did you mean '--samples'",
        ),
        ("interventions.cli.main", "main", "--ckpt x --freze D", "unknown option '--freze'; did you mean '--freeze'"),
        ("biggan.cli.data", "data_main", "prepare d --resolution 8 --out o --skip-brokn", "mean '--skip-broken'"),
        ("interventions.cli.main", "main", "compare x --basline y", "unknown option '--basline'"),
    ],
)
def test_a_misspelt_option_is_told_the_right_one(
    module: str, name: str, line: str, words: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        getattr(importlib.import_module(module), name)(line.split())
    assert ended.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_edits_of_a_run_s_configuration_are_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A run goes on with its checkpoint's."""
    run = tmp_path / "run"
    assert train_main([*TINY, "--steps=1", "--eval.every=0", "--quiet", "--out", str(run)]) == 0
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("batch: 8", "batch: 16"))
    assert train_main(["--resume", str(run), "--steps=2"]) == 0
    assert "edits of config.yaml are not read (train.batch: 16); give them as options" in capsys.readouterr().out
    file.write_text("model: [unclosed")
    assert train_main(["--resume", str(run), "--steps=3"]) == 0
    assert "config.yaml is replaced by the checkpoint's configuration: " in capsys.readouterr().out
    assert train_main(["--resume", str(run), "--steps=4"]) == 0
    assert "config.yaml" not in capsys.readouterr().out


def test_a_file_in_the_place_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert train_main([*TINY, "--steps=1", "--out", str(tmp_path / "file")]) == 2
    assert "is a file, expected a new run directory" in " ".join(capsys.readouterr().err.split())
