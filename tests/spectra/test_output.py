"""Output that cannot break a command: closed pipes, full disks, closed streams, terminals without characters."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import TINY

from biggan.cli.train import train_main
from biggan.run.directory import RunDirectory
from spectra.cli.commands import main as spectra_main
from spectra.cli.output import unbreakable_output


def closed_pipe() -> io.TextIOWrapper:
    """A stream whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", encoding="utf-8")


def full_file() -> io.TextIOWrapper:
    """A stream into a place without space."""
    return open("/dev/full", "w", encoding="utf-8")


class FullFile(io.StringIO):
    """A regular file on a full disk."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = open(path, "w")  # noqa: SIM115

    def fileno(self) -> int:
        return self._file.fileno()

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("stream", [closed_pipe, full_file])
def test_a_reader_that_has_gone_is_not_missed(stream: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    with stream() as out:
        monkeypatch.setattr(sys, "stdout", out)
        with unbreakable_output():
            for _ in range(3):
                print("x" * 100_000, flush=True)
        assert sys.stdout is out


def test_a_file_on_a_full_disk_is_said_unless_all_may_be_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", FullFile(tmp_path / "out"))
    with unbreakable_output(), pytest.raises(OSError, match="No space"):
        print("x", flush=True)
    monkeypatch.setattr(sys, "stdout", FullFile(tmp_path / "out"))
    with unbreakable_output(everything=True):
        print("x", flush=True)


@pytest.mark.parametrize("program", ["biggan-train", "spectra"])
def test_an_error_that_cannot_be_said_keeps_its_exit_code(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`command > log 2>&1` on a full disk."""
    errors = FullFile(tmp_path / "errors")
    monkeypatch.setattr(errors, "write", lambda text: errors.flush())  # a line at a time
    monkeypatch.setattr(sys, "stderr", errors)
    missing = str(tmp_path / "no-run")
    code = train_main(["--resume", missing]) if program == "biggan-train" else spectra_main(["events", missing])
    assert code == 2


def test_characters_that_the_terminal_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with unbreakable_output():
        print("Σ₀ of Élan\udcff")
    assert raw.getvalue() == b"\\u03a3\\u2080 of \\xc9lan\\udcff\n"


def test_streams_that_were_closed_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with unbreakable_output():
        print("x", flush=True)
        assert not sys.stdout.isatty()
    assert sys.stdout is None


def test_training_goes_on_without_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both streams, as with `2>&1 | head`; in a directory whose name no ASCII terminal has."""
    for number, stream in enumerate((closed_pipe, full_file)):
        run = tmp_path / f"{number} Σ"
        with monkeypatch.context() as patch, stream() as out, stream() as errors:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", errors)
            assert train_main(["--out", str(run), "--steps=2", "--monitor=none", *TINY]) == 0
        assert RunDirectory(run).events()[-1]["event"] == "finished"


def test_a_list_of_events_on_a_closed_pipe(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_pipe() as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert spectra_main(["events", str(finished)]) == 0


def shell(line: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment, check=False)


PYTHON = f"PYTHONPATH={Path(__file__).parents[2]} {sys.executable} -m"


def test_help_into_head_is_quiet() -> None:
    """In a process of its own: what is left in buffers is an error only when it ends."""
    done = shell(f"set -o pipefail; {PYTHON} spectra.cli.commands --help | true")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("biggan.train --out RUN/Σ --steps 3 OPTIONS 2>&1 | true", 0),
        ("biggan.train --out RUN/Σ --steps 3 OPTIONS >&- 2>&-", 0),
        ("biggan.train --help | head -1", 0),
        ("biggan.train --resume RUN/none 2>&1 | true", 2),
        ("interventions.cli.main changes | true", 0),
        ("interventions.cli.main --help | true", 0),
        ("spectra.cli.commands events RUN/none | true", 2),
    ],
)
def test_pipes_that_close(line: str, code: int, tmp_path: Path) -> None:
    line = line.replace("RUN", str(tmp_path)).replace("OPTIONS", " ".join([*TINY, "--monitor=none"]))
    done = shell(f"set -o pipefail; {PYTHON} {line}")
    assert done.returncode == code
    assert "Traceback" not in done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "C", "C-without-utf8"],
)
def test_ascii_terminals(variables: dict[str, str], tmp_path: Path) -> None:
    """A run with such a name is trained, listed and refused; without HOME."""
    run = tmp_path / "Σ₀"
    options = " ".join([*TINY, "--monitor=none"])
    done = shell(f"{PYTHON} biggan.train --out {run} --steps 2 {options}", **variables)
    assert done.returncode == 0, done.stderr
    assert "finished at step 2" in done.stdout
    for line, code in ((f"spectra.cli.commands events {run}", 0), (f"biggan.train --out {run} {options}", 2)):
        done = shell(f"{PYTHON} {line}", **variables)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
