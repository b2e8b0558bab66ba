"""A detector from outside: one class, one line in a registry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny import TINY

import spectra
from biggan.cli.train import train_main
from spectra.cli.commands import main as spectra_main


@dataclass(frozen=True)
class HighLossThresholds:
    """Of `HighLoss`."""

    loss: float = -1e9
    """A loss above this is high."""


class HighLoss(spectra.Detector):
    """The first step at which G's loss is high."""

    kinds, what = ("high_loss",), "a high loss of G"
    reads, thresholds = ("loss/G",), HighLossThresholds

    def __init__(self, **thresholds: float) -> None:
        super().__init__(**thresholds)
        self.at, self.found = HighLossThresholds(**thresholds), False

    def update(self, step: int, values: Mapping[str, float]) -> list[spectra.Finding]:
        """Once."""
        if self.found or not values.get("loss/G", self.at.loss) > self.at.loss:
            return []
        self.found = True
        return [spectra.Finding("high_loss", step, step, {"loss": values["loss/G"]})]


def test_a_detector_of_ones_own_raises_alarms_and_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(spectra.DETECTORS, "high_loss", HighLoss)
    run = tmp_path / "run"
    assert train_main(["--out", str(run), "--steps=3", "--quiet", *TINY]) == 0
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (alarm,) = [event for event in events if event["event"] == "alarm"]
    assert (alarm["cause"], alarm["step"], alarm["onset"]) == ("high_loss", 1, 1)
    capsys.readouterr()
    assert spectra_main(["detect", str(run), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["kind"], row["step"], row["details"]) == ("high_loss", 1, {"loss": alarm["loss"]})
    with pytest.raises(SystemExit):
        spectra_main(["detect", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said for name in ("a high loss of G", "spikes of sigma_0", "the collapse of the samples"))


def test_a_detector_with_other_thresholds_is_given_itself(tmp_path: Path) -> None:
    monitor = spectra.Monitor({}, tmp_path, detectors=["spikes", HighLoss(loss=5.0)])
    for step, loss in enumerate((1.0, 6.0), 1):
        monitor.after_step(step, {"loss/G": loss})
    monitor.close()
    (event,) = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert (event["event"], event["cause"], event["step"]) == ("alarm", "high_loss", 2)
