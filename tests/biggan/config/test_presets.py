"""Presets: what they resolve to, their bases, and their earlier names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from biggan.cli.options import parse
from biggan.cli.train import train_main
from biggan.config import from_dict, unflatten
from biggan.config.presets import FOLDERS, preset_chain, preset_names, preset_text, preset_values, read_yaml
from biggan.errors import UserError

RESOLVED = json.loads((Path(__file__).parent / "resolved_presets.json").read_text())
"""Written before presets had bases, under the earlier names of fields: all defaults, and what each preset changes."""


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_the_configuration_that_it_was_before_it_had_a_base(name: str) -> None:
    assert parse([name]).config() == from_dict(unflatten(RESOLVED["defaults"] | RESOLVED["presets"][name]))


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_holds_only_what_differs_from_its_base(name: str) -> None:
    _, *bases = preset_chain(name)
    own = read_yaml(preset_text(name), name)
    before = preset_values(bases[0]) if bases else {}
    own.pop("base", None)
    assert not [field for field, value in own.items() if before.get(field, "not set") == value]


def test_names_start_with_the_default_and_cover_the_files() -> None:
    assert preset_names()[0] == "digits"
    assert set(preset_names()) == set(RESOLVED["presets"])


def presets(folder: Path, monkeypatch: pytest.MonkeyPatch, **texts: str) -> None:
    monkeypatch.setattr("biggan.config.presets.FOLDERS", [*FOLDERS, folder])
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)


def test_bases_chain_and_the_nearer_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    presets(
        tmp_path,
        monkeypatch,
        far="base: cifar10\nseed: 1\noptim: {G: {lr: 1e-3}}\nmodel: {ch_G: 3}\n",
        near="base: far\nseed: 2\nmodel: {ch: 7}\n",
    )
    assert preset_chain("near") == ["near", "far", "cifar10", "imagenet128"]
    config = parse(["near"]).config()
    assert (config.seed, config.optim.G.lr, config.model.resolution) == (2, 1e-3, 32)
    assert config.model.width_G == 7  # ch sets both widths, as everywhere


def test_a_cycle_of_bases_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    presets(tmp_path, monkeypatch, one="base: two\n", two="base: three\n", three="base: one\n")
    with pytest.raises(UserError, match="in a cycle: one -> two -> three -> one"):
        parse(["one"]).config()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: cifar\n", "unknown preset 'cifar'; did you mean 'cifar10'"),
        ("modle: {ch: 3}\n", "unknown field in the preset mine: 'modle.ch'; did you mean 'model.ch'"),
        ("model: {ch: [3\n", "in the preset mine: this is not YAML"),
        ("model: {ch: wide}\n", "in the preset mine: model.ch is 'wide', expected a whole number"),
    ],
)
def test_a_wrong_preset_is_named(text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    presets(tmp_path, monkeypatch, mine=text)
    with pytest.raises(UserError, match=words):
        parse(["mine"]).config()


def test_the_earlier_name_of_the_default_preset_works_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert parse(["jar"]).config() == parse([]).config()
    assert "the preset jar is now called digits" in capsys.readouterr().err
    assert parse(["jar"]).preset == "digits"
    monkeypatch.chdir(tmp_path)
    assert (
        train_main(
            [
                "jar",
                "--model.resolution=8",
                "--model.ch=4",
                "--train.batch=8",
                "--steps=1",
                "--eval.every=0",
                "--samples.every=0",
                "--monitor=none",
                "--quiet",
            ]
        )
        == 0
    )
    assert (tmp_path / "runs" / "digits" / "config.yaml").exists()


def test_a_base_may_have_its_earlier_name_and_a_folder_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.yaml").write_text("base: jar\nsteps: 7\n")
    (tmp_path / "number.yaml").write_text("base: 5\n")
    monkeypatch.setattr("biggan.config.presets.FOLDERS", [*FOLDERS, tmp_path / "missing", tmp_path])
    assert preset_chain("old") == ["old", "digits"]
    with pytest.raises(UserError, match="unknown preset '5'"):
        preset_values("number")
