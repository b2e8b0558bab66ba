"""A preset from outside: one YAML file, and one line that names its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from biggan.cli.train import train_main
from biggan.config import presets


def test_it_is_run_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "digits-tiny.yaml").write_text(
        "base: digits\nsteps: 1\nmodel: {resolution: 8, ch: 4}\neval: {every: 0}\n"
    )
    monkeypatch.setattr(presets, "FOLDERS", [*presets.FOLDERS, tmp_path])
    monkeypatch.chdir(tmp_path)
    assert train_main(["digits-tiny", "--train.batch=8", "--quiet"]) == 0
    config = yaml.safe_load((tmp_path / "runs" / "digits-tiny" / "config.yaml").read_text())
    assert (config["steps"], config["model"]["resolution"], config["train"]["batch"]) == (1, 8, 8)
    assert config["optim"]["G"]["lr"] == 1e-3  # the base's
    with pytest.raises(SystemExit):
        train_main(["digits-tiny", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "digits-tiny, imagenet128" in text
    assert "(at least 8; digits-tiny: 8)" in text
