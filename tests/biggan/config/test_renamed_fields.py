"""Recorded configurations, files and command lines with earlier names of fields."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tiny import TINY

from biggan.cli.options import parse
from biggan.cli.train import train_main
from biggan.config import RENAMED, Config, fields, flatten, from_dict, to_dict, unflatten
from biggan.errors import UserError
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint

OTHER = {
    "model.kernel_size_G": 5,
    "model.kernel_size_D": 7,
    "model.conv1_width_D": "in",
    "speed.fused_resampling": True,
}
"""For each renamed field a value that is not its default."""


def test_the_table_leads_from_no_field_to_a_field() -> None:
    names = {name for name, _ in fields()}
    assert set(RENAMED.values()) == set(OTHER)
    assert set(RENAMED.values()) <= names
    assert not set(RENAMED) & names


def test_a_recorded_configuration_loads() -> None:
    earlier = {name: OTHER[now] for name, now in RENAMED.items()}
    assert from_dict(unflatten(earlier)) == from_dict(unflatten(OTHER))
    assert flatten(to_dict(from_dict(unflatten(earlier)))) | OTHER == flatten(to_dict(from_dict(unflatten(OTHER))))


@pytest.mark.parametrize("equals", [True, False])
def test_the_command_line_and_files_take_them_with_a_note(
    equals: bool, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    given = ["--model.filter_G=5"] if equals else ["--model.filter_G", "5"]
    assert parse(given).config().model.kernel_size_G == 5
    assert "note: --model.filter_G is now called --model.kernel_size_G." in capsys.readouterr().err
    path = tmp_path / "mine.yaml"
    path.write_text("model: {hidden_D: in}\nspeed: {merged_resampling: true}\n")
    config = parse(["--config", str(path)]).config()
    assert (config.model.conv1_width_D, config.speed.fused_resampling) == ("in", True)
    assert f"in {path}: model.hidden_D is now called model.conv1_width_D" in capsys.readouterr().err


def test_a_run_with_earlier_names_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """config.yaml and the checkpoint as they were written then."""
    back = {now: earlier for earlier, now in RENAMED.items()}

    def recorded(config: Config) -> dict:
        return unflatten({back.get(name, name): value for name, value in flatten(to_dict(config)).items()})

    for module in ("directory", "retention", "session"):
        monkeypatch.setattr(f"biggan.run.{module}.to_dict", recorded)
    out = tmp_path / "run"
    assert train_main(["--out", str(out), "--steps=1", "--quiet", "--model.kernel_size_D=5", *TINY]) == 0
    monkeypatch.undo()
    assert yaml.safe_load((out / "config.yaml").read_text())["model"]["filter_D"] == 5
    assert train_main(["--resume", str(out), "--steps=2", "--quiet"]) == 0
    assert read_checkpoint(checkpoint_paths(out)[-1]).config.model.kernel_size_D == 5


def test_a_field_under_both_of_its_names_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.kernel_size_G is given twice"):
        from_dict({"model": {"filter_G": 5, "kernel_size_G": 3}})
