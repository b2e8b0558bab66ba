"""Files that are whole or not there: contents, permissions, what a failure leaves."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spectra.record import files
from spectra.record.files import append_line, move, remove_partial, replacing, write_tensors, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old ü\n")
    with suppress(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        assert path.read_text(encoding="utf-8") == "old ü\n"
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "old ü\n"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_get_the_permissions_of_new_files_here(umask: int, tmp_path: Path) -> None:
    """safetensors by itself makes a file its owner's alone."""
    before = os.umask(umask)
    try:
        write_tensors(tmp_path / "a", {"x": torch.ones(2)}, {"k": "v"})
        write_text(tmp_path / "b", "")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o666 & ~umask] * 2
    assert load_file(tmp_path / "a")["x"].tolist() == [1, 1]


def test_tensors_that_cannot_be_written_are_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_tensors(tmp_path / "no folder" / "a", {"x": torch.ones(2)})


def test_tensors_that_have_no_room_are_refused_with_the_systems_number(tmp_path: Path) -> None:
    """Commands tell a full disk or a limit by it; the library that writes the file knows it in words alone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*'.*a'") as refused:
            write_tensors(tmp_path / "a", {"x": torch.ones(2_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("durable", [True, False])
def test_contents_are_on_the_disk_before_the_name_and_the_name_before_it_returns(
    durable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real_sync, real_replace = files.sync, os.replace
    monkeypatch.setattr(files, "sync", lambda path: (done.append(f"sync {path.name}"), real_sync(path)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), real_replace(a, b)))
    with replacing(tmp_path / "a", durable=durable) as temporary:
        temporary.write_text("x")
    name = f"sync .a.{os.getpid()}.tmp"
    assert done == ([name, "replace", f"sync {tmp_path.name}"] if durable else ["replace"])


def test_a_torn_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_line(path, "one")
    with open(path, "a") as file:
        file.write("tor")
    append_line(path, "two")
    append_line(path, "three")
    assert path.read_text() == "one\ntor\ntwo\nthree\n"


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    for name in (".a.json.7.tmp", ".b.json.8.tmp", "a.json", "c.tmp", ".lock"):
        (tmp_path / name).touch()
    remove_partial(tmp_path, "a.json")
    assert sorted(os.listdir(tmp_path)) == [".b.json.8.tmp", ".lock", "a.json", "c.tmp"]
    remove_partial(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", "a.json", "c.tmp"]


def test_what_a_killed_write_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """And not what another process is writing just now, nor what belongs to other files."""
    path = tmp_path / "a[1].csv"
    for name in (".a[1].csv.77.tmp", ".a[1].csv.78.tmp", ".a1.csv.77.tmp"):
        (tmp_path / name).touch()
    with open(tmp_path / ".a[1].csv.78.tmp", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        write_text(path, "x")
        assert sorted(os.listdir(tmp_path)) == [".a1.csv.77.tmp", ".a[1].csv.78.tmp", "a[1].csv"]
    with replacing(path) as temporary:
        temporary.write_text("y")
        with open(temporary, "rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert path.read_text() == "y"
    assert sorted(os.listdir(tmp_path)) == [".a1.csv.77.tmp", "a[1].csv"]


def test_a_folder_does_not_replace_one_with_contents(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "new").touch()
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").touch()
    with pytest.raises(OSError, match="not empty"):
        move(tmp_path / "made", tmp_path / "there")
    (tmp_path / "there" / "mine").unlink()
    move(tmp_path / "made", tmp_path / "there")
    assert os.listdir(tmp_path) == ["there"]
    assert os.listdir(tmp_path / "there") == ["new"]
