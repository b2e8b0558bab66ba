"""Windows: a sentence instead of a traceback; help is there all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from biggan.cli.data import data_main
from biggan.cli.evaluate import eval_main
from biggan.cli.import_weights import import_main
from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from biggan.config import from_dict
from biggan.errors import UserError
from interventions.cli.main import main as intervene_main
from spectra.cli.commands import main as spectra_main


@pytest.fixture(autouse=True)
def _windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")


@pytest.mark.parametrize("command", [train_main, eval_main, sample_main, data_main, import_main, intervene_main])
def test_commands_that_need_unix_say_so(command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ANN001
    assert command(["--out", str(tmp_path / "run")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "does not run on Windows" in said
    assert "tested on Linux" in said
    assert "WSL 2" in said
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit) as ended:
        command(["--help"])
    assert ended.value.code == 0


def test_spectra_reads_but_does_not_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "events.jsonl").write_text('{"event": "started", "step": 0, "time": 1.0}\n')
    assert spectra_main(["events", str(tmp_path)]) == 0
    out, said = capsys.readouterr()
    assert "started" in out
    assert "tested on Linux only" in said
    assert spectra_main(["plot", str(tmp_path)]) == 2
    assert "does not run on Windows" in capsys.readouterr().err


def test_apples_gpus_are_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="no float64"):
        from_dict({"device": "mps"})


def test_the_sentence_comes_before_what_windows_lacks_is_imported() -> None:
    code = """
import signal, sys
del signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2
sys.modules["fcntl"] = sys.modules["resource"] = None
from biggan.cli import data, evaluate, import_weights, sample, train
from interventions.cli import main
sys.platform = "win32"
commands = [data.data_main, evaluate.eval_main, import_weights.import_main, sample.sample_main]
commands += [train.train_main, main.main]
sys.exit(0 if [command([]) for command in commands] == [2] * len(commands) else 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
