"""Locks, links, free names, and folders that appear whole."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from biggan.run import files
from biggan.run.files import Lock, free_name, link_or_copy, replace_link, whole_folder


def test_a_lock_keeps_others_out_until_it_is_closed(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock", remove=True), pytest.raises(BlockingIOError):
        Lock(tmp_path / "lock")
    assert not (tmp_path / "lock").exists()
    with Lock(tmp_path / "lock"):
        pass
    assert (tmp_path / "lock").exists()


def test_a_lock_waits(tmp_path: Path) -> None:
    """The holder removes the file as it lets go, so that the one who waited must lock another."""
    first, got = Lock(tmp_path / "lock", remove=True), threading.Event()

    def second() -> None:
        with Lock(tmp_path / "lock", wait=True):
            got.set()

    waiting = threading.Thread(target=second)
    waiting.start()
    assert not got.wait(0.1)
    first.close()
    waiting.join()
    assert got.is_set()


def test_a_forked_process_does_not_remove_its_parents_lock(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", remove=True)
    if not (child := os.fork()):
        lock.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "lock").exists()
    with pytest.raises(BlockingIOError):
        Lock(tmp_path / "lock")
    lock.close()


def test_free_names(tmp_path: Path) -> None:
    assert free_name(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").touch()
    assert free_name(tmp_path / "a") == tmp_path / "a-3"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    for wrong in (True, False):
        try:
            with whole_folder(tmp_path / "run") as made:
                made.mkdir()
                (made / "x").touch()
                assert not (tmp_path / "run").exists()
                if wrong:
                    raise RuntimeError
        except RuntimeError:
            assert os.listdir(tmp_path) == []
    assert os.listdir(tmp_path) == ["run"]
    assert os.listdir(tmp_path / "run") == ["x"]


@pytest.mark.parametrize("links", [True, False])
def test_links_and_copies(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    if not links:
        monkeypatch.setattr(files.os, "link", refuse)
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "b"  # what is there stays
    for _ in range(2):  # renaming one link of a file to another would leave both
        replace_link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "a"
    assert (tmp_path / "b").samefile(tmp_path / "a") == links
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_what_a_killed_process_left_of_a_folder_is_removed(tmp_path: Path) -> None:
    """And nothing that one which lives is filling."""
    unused = 2**22 + 1  # no process has this number
    for name, lock in ((f".run.{unused}.new", True), (f".run.{unused + 1}.new", False), (".run.1.new", True)):
        (tmp_path / name).mkdir()
        if lock:
            (tmp_path / name / files.LOCK).touch()
    for name in (".run.mine.new", ".other.5.new"):
        (tmp_path / name).mkdir()
    (tmp_path / f".run.{os.getppid()}.new").mkdir(exist_ok=True)  # 1 is its parent where nobody waits for it
    with Lock(tmp_path / ".run.1.new" / files.LOCK), whole_folder(tmp_path / "run") as made:
        made.mkdir()
    living = {".run.1.new", f".run.{os.getppid()}.new"}
    assert set(os.listdir(tmp_path)) == {"run", ".run.mine.new", ".other.5.new"} | living
