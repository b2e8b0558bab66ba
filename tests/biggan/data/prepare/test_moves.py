"""The last moves of `biggan-data prepare`: locked until the rename, errors where disk or place fill."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pictures import Silent, write_folder

from biggan.cli.data import data_main
from biggan.data.prepare import job as prepare_module
from biggan.data.prepare.job import plan, prepare
from biggan.data.prepare.journal import lock
from biggan.errors import UserError
from biggan.run.files import Lock


def run(*arguments: object) -> int:
    return data_main([str(argument) for argument in arguments])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos", {"cat": 6, "ant": 9})


def test_what_was_made_while_waiting_is_seen_and_what_is_in_the_way_is_left(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process finishes, or fills the place, after the first look and before the rename."""
    out = tmp_path / "out"
    job = plan(str(photos), out, 8, top_classes=None, val_fraction=None)
    run("prepare", photos, "--resolution", 8, "--out", tmp_path / "theirs")
    moved = prepare_module._move

    def theirs_first(folder: Path) -> Lock:
        os.rename(tmp_path / "theirs", out)
        return lock(folder)

    def fill_first(staging: Path, target: Path) -> None:
        assert Path(f"{target}.lock").exists()  # it is held until the rename is done
        target.mkdir()
        (target / "mine.txt").write_text("mine")
        moved(staging, target)

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "lock", theirs_first)
        assert prepare(job, processes=1, skip_broken=False, reporter=Silent())["splits"]["."]["images"] == 15
    os.rename(out, tmp_path / "theirs")
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "_move", fill_first)
        with pytest.raises(UserError, match=r"something was written to \S*out while .* move \S*out away"):
            prepare(job, processes=1, skip_broken=False, reporter=Silent())
    assert os.listdir(out) == ["mine.txt"]
    os.rename(out, tmp_path / "away")
    prepare(job, processes=1, skip_broken=False, reporter=Silent())
    assert files(out) == files(tmp_path / "theirs")
    assert sorted(os.listdir(tmp_path)) == ["away", "out", "photos", "theirs"]


def test_a_lock_left_by_a_kill_is_taken(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out.lock").touch()
    assert run("prepare", photos, "--resolution", 8, "--out", tmp_path / "out") == 0
    assert sorted(os.listdir(tmp_path)) == ["out", "photos"]


def test_a_disk_that_fills_while_gaps_are_closed(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "cat" / "notes.jpg").write_text("not an image")
    command = ("prepare", photos, "--resolution", 8, "--out", tmp_path / "out", "--skip-broken")
    with monkeypatch.context() as patch:
        usage = SimpleNamespace(free=16 * 192 + 100)  # room for one copy and not for two
        patch.setattr("biggan.data.prepare.job.shutil.disk_usage", lambda _: usage)
        assert run(*command) == 2
        assert "with what --skip-broken needs to close gaps" in " ".join(capsys.readouterr().err.split())

    def full(file: object, header: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("biggan.data.prepare.job.np.lib.format.write_array_header_1_0", full)
        assert run(*command) == 2
    assert "This temporarily needs another 0.0 GB" in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.glob("out.preparing/*.tmp"))
    assert run(*command) == 0
    assert "continuing: 16 of 16" in capsys.readouterr().out
    assert np.load(tmp_path / "out" / "images.npy").shape == (15, 8, 8, 3)


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "stopped. What is packed is kept, and the same command continues from there."),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device. What is packed is kept"),
    ],
)
def test_an_interrupt_or_a_full_disk_anywhere_speaks_of_packing(
    raised: BaseException,
    code: int,
    words: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("biggan.data.prepare.job.plan", interrupted)
    assert run("prepare", photos, "--resolution", 8, "--out", tmp_path / "out") == code
    error = " ".join(capsys.readouterr().err.split())
    assert words in error
    assert "checkpoint" not in error
