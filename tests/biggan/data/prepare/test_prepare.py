"""`biggan-data prepare`: whole or not there, resumable, parallel; what it says."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Process
from pathlib import Path

import numpy as np
import pytest
from pictures import encode, picture, write_folder, write_parquet

from biggan.cli.data import data_main
from biggan.data.decode import decode
from biggan.data.prepare import job as prepare_module
from biggan.data.prepare.journal import Journal, lock
from biggan.data.sources import encoded as encoded_module


def run(*arguments: object) -> int:
    return data_main([str(argument) for argument in arguments])


def start(*arguments: object, decode: Callable[[bytes], object] | None = None, chunk: int = 5) -> Process:
    """`biggan-data` in a process of its own, with small chunks, and with another way to decode where given."""

    def body() -> None:
        os.setpgrp()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit that it is ignored
        prepare_module.CHUNK_BYTES = 3 * 8 * 8 * chunk
        if decode is not None:
            encoded_module.decode = lambda data, most=None: decode(data)  # type: ignore[assignment]
        sys.exit(run(*arguments))

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    return process  # type: ignore[return-value]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos", {"cat": 6, "ant": 9})


def test_prepare_says_what_it_did_and_a_second_one_sees_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "packed"
    assert run("prepare", photos, "--resolution", 8, "--out", out, "--workers", 2) == 0
    first = capsys.readouterr().out
    assert "15 images at 8 x 8, 2 classes" in first
    assert f"--data.path {out}" in first
    assert os.listdir(out.parent) == ["packed"]
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert run("prepare", photos, "--resolution", 8, "--out", out) == 0
    assert "is already prepared: 15 images" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert run("check", out) == 0
    assert "is complete" in capsys.readouterr().out
    with open(out / "images.npy", "r+b") as file:
        file.seek(200)
        file.write(bytes([file.read(1)[0] ^ 1]))
    assert run("check", out) == 1
    assert "its bytes have changed" in capsys.readouterr().err


def test_any_number_of_workers_and_any_chunks_give_the_same_files(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("prepare", photos, "--resolution", 8, "--out", tmp_path / "one", "--workers", 1)
    monkeypatch.setattr("biggan.data.prepare.job.CHUNK_BYTES", 3 * 8 * 8 * 2)
    run("prepare", photos, "--resolution", 8, "--out", tmp_path / "three", "--workers", 3)
    assert files(tmp_path / "one") == files(tmp_path / "three")


def test_label_lists_have_a_file_of_their_own(tmp_path: Path) -> None:
    labels = [[1, 0], [0], [2, 1]]
    write_parquet(tmp_path / "lists" / "train-0.parquet", labels)
    write_parquet(tmp_path / "lists" / "test-0.parquet", [[0], [1], [2]])
    assert run("prepare", tmp_path / "lists", "--resolution", 8, "--out", tmp_path / "out") == 0
    assert np.load(tmp_path / "out" / "train" / "labels.npy").tolist() == [1, 0, 2]
    lists = np.load(tmp_path / "out" / "train" / "label_lists.npz")
    assert (lists["values"].tolist(), lists["starts"].tolist()) == ([1, 0, 0, 2, 1], [0, 2, 3, 5])
    assert not (tmp_path / "out" / "val" / "label_lists.npz").exists()


def test_top_classes_and_a_held_out_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write_folder(tmp_path / "photos", {"ant": 3, "bee": 8, "cat": 8, "dog": 9, "eel": 8})
    options = ("--top-classes", 3, "--val-fraction", 0.25)
    assert run("prepare", photos, "--resolution", 8, "--out", tmp_path / "out", *options) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["classes"] == ["bee", "cat", "dog"]
    held = np.bincount(np.load(tmp_path / "out" / "val" / "labels.npy"))
    assert len(held) == 3
    assert (held >= 1).all()
    assert held.sum() < 13
    assert f"{25 - held.sum()} (train) + {held.sum()} (val) images at 8 x 8, 3 classes" in capsys.readouterr().out


def test_a_prepare_that_was_killed_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("biggan.data.prepare.job.CHUNK_BYTES", 3 * 8 * 8 * 5)
    photos = write_folder(tmp_path / "photos", {"cat": 60, "ant": 60})
    expected, out, staging = tmp_path / "expected", tmp_path / "out", tmp_path / "out.preparing"
    assert run("prepare", photos, "--resolution", 8, "--out", expected, "--workers", 1) == 0

    def slow(data: bytes) -> np.ndarray:
        time.sleep(0.02)  # so that the kill falls into the middle
        return decode(data)

    process = start("prepare", photos, "--resolution", 8, "--out", out, "--workers", 2, decode=slow)
    journal = staging / "done.jsonl"
    while not (journal.exists() and journal.read_text().count('"stop"') >= 4):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = journal.read_text().count('"stop"')
    assert 4 <= done < 24
    assert not out.exists()
    journal.write_text(journal.read_text() + '\n{"split": ".", "sta')  # as a power cut would leave it
    capsys.readouterr()
    assert run("prepare", photos, "--resolution", 8, "--out", out, "--workers", 2) == 0
    printed = capsys.readouterr().out
    assert f"continuing: {5 * done} of 120 images were packed before" in printed
    assert f"packed {120 - 5 * done} images in" in printed
    assert not staging.exists()
    assert files(out) == files(expected)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see other processes")
def test_workers_leave_when_their_parent_is_killed(tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos", {"cat": 20})
    hang = lambda data: time.sleep(5)  # noqa: E731
    process = start("prepare", photos, "--resolution", 8, "--out", tmp_path / "out", "--workers", 2, decode=hang)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(found := children.read_text().split()) < 2:
        time.sleep(0.05)
    time.sleep(0.3)  # until they watch
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(found) == 2
    while any(_alive(child) for child in found):
        time.sleep(0.1)
    assert not any(_alive(child) for child in found)


def _alive(process: str) -> bool:
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_kill_between_the_last_two_moves(photos: Path, tmp_path: Path) -> None:
    out, staging = tmp_path / "out", tmp_path / "out.preparing"
    run("prepare", photos, "--resolution", 8, "--out", out)
    before = files(out)
    os.rename(out, staging)
    assert run("prepare", photos, "--resolution", 8, "--out", out) == 0
    assert files(out) == before
    assert not staging.exists()


@pytest.mark.parametrize("removal", range(2, 5))
def test_a_kill_while_useless_work_is_deleted(photos: Path, tmp_path: Path, removal: int) -> None:
    """A worker dies before anything is packed, and then the call that deletes what there is: the next one makes all."""
    assert run("prepare", photos, "--resolution", 8, "--out", tmp_path / "wanted") == 0
    out, removed = tmp_path / "packed", list[str]()

    def kill_in_deleting(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("os.remove", "os.rmdir") and os.getpid() != parent:
            removed.append(event)
            if len(removed) == removal:
                os.kill(os.getpid(), signal.SIGKILL)

    def body() -> None:
        encoded_module.decode = lambda *given: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        sys.addaudithook(kill_in_deleting)
        sys.exit(run("prepare", photos, "--resolution", 8, "--out", out, "--workers", 1))

    parent = os.getpid()
    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    process.join(60)
    assert process.exitcode in (-signal.SIGKILL, 2)
    assert run("prepare", photos, "--resolution", 8, "--out", out) == 0
    assert files(out) == files(tmp_path / "wanted")


def test_broken_files_are_named_and_nothing_is_left(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "cat" / "notes.jpg").write_text("not an image")
    (photos / "ant" / "003.png").write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    assert run("prepare", photos, "--resolution", 8, "--out", tmp_path / "out") == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "ant/003.png: the file is empty" in message
    assert "--skip-broken" in message
    assert sorted(tmp_path.iterdir()) == before


def test_skip_broken_skips_lists_and_closes_the_gaps(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = tmp_path / "expected"
    run("prepare", photos, "--resolution", 8, "--out", expected)
    (photos / "cat" / "notes.jpg").write_text("not an image")
    (photos / "ant" / "0015.png").write_bytes(encode(picture(0, 40, 40))[:500])
    out = tmp_path / "out"
    assert run("prepare", photos, "--resolution", 8, "--out", out, "--skip-broken") == 0
    printed = capsys.readouterr().out
    assert "skipped 2 broken images" in printed
    assert f"skipped {photos}/cat/notes.jpg: not an image" in printed
    skipped = json.loads((out / "manifest.json").read_text())["skipped"]
    assert [Path(item["name"]).name for item in skipped] == ["0015.png", "notes.jpg"]
    for name in ("images.npy", "labels.npy"):
        assert np.array_equal(np.load(out / name), np.load(expected / name))
    assert sorted(path.name for path in out.iterdir()) == ["images.npy", "labels.npy", "manifest.json", "origins.npy"]


def test_work_done_before_a_broken_file_is_kept(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("biggan.data.prepare.job.CHUNK_BYTES", 3 * 8 * 8 * 2)
    (photos / "cat" / "zebra.png").write_text("not an image")
    out = tmp_path / "out"
    assert run("prepare", photos, "--resolution", 8, "--out", out, "--workers", 1) == 2
    assert "is kept in" in " ".join(capsys.readouterr().err.split())
    assert run("prepare", photos, "--resolution", 8, "--out", out, "--skip-broken") == 0
    kept = re.search(r"continuing: (\d+) of 16 images were packed before", capsys.readouterr().out)
    assert kept is not None
    assert 0 < int(kept[1]) <= 14, "how many were done when the broken one was met depends on the machine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


def test_a_mended_source_begins_anew_and_another_aim_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("biggan.data.prepare.job.CHUNK_BYTES", 3 * 8 * 8 * 2)
    (photos / "cat" / "zebra.png").write_text("not an image")
    out = tmp_path / "out"
    assert run("prepare", photos, "--resolution", 8, "--out", out, "--workers", 1) == 2
    capsys.readouterr()
    assert run("prepare", photos, "--resolution", 16, "--out", out) == 2
    assert "unfinished preparation of" in capsys.readouterr().err
    (photos / "cat" / "zebra.png").unlink()
    assert run("prepare", photos, "--resolution", 8, "--out", out) == 0
    assert "continuing" not in capsys.readouterr().out
    run("prepare", photos, "--resolution", 8, "--out", tmp_path / "expected")
    assert files(out) == files(tmp_path / "expected")


def test_bad_input(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done, taken, foreign = tmp_path / "done", tmp_path / "taken", tmp_path / "new.preparing"
    run("prepare", photos, "--resolution", 8, "--out", done)
    split = tmp_path / "split"
    run("prepare", "digits", "--resolution", 8, "--out", split)
    assert np.load(split / "train" / "images.npy").shape == (1402, 8, 8, 3)
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    foreign.mkdir()
    (foreign / "mine.txt").write_text("mine")
    write_folder(tmp_path / "junk", {"cat": 1})
    (tmp_path / "junk" / "cat" / "000.png").write_text("junk")
    (tmp_path / "empty").mkdir()
    capsys.readouterr()
    for arguments, message in [
        ((photos, "--resolution", 16, "--out", done), "was prepared at resolution 8, but --resolution is 16"),
        (
            (photos, "--resolution", 8, "--out", done, "--top-classes", 1),
            "or with other options",
        ),
        ((photos, "--resolution", 8, "--out", taken), "exists and is not prepared data"),
        ((photos, "--resolution", 8, "--out", tmp_path / "new"), "this preparation did not make it"),
        ((photos, "--resolution", 0, "--out", tmp_path / "x"), "--resolution is 0, expected at least 1"),
        ((photos, "--resolution", 8, "--out", tmp_path / "x", "--workers", 0), "--workers is 0"),
        ((photos, "--resolution", 8, "--out", tmp_path / "x", "--val-fraction", 2), "--val-fraction is 2.0"),
        ((photos, "--resolution", 8, "--out", tmp_path / "x", "--top-classes", 3), "has 2 classes"),
        (("digits", "--resolution", 8, "--out", tmp_path / "x", "--val-fraction", 0.1), "its own validation split"),
        ((done, "--resolution", 8, "--out", tmp_path / "x"), "already prepared data"),
        ((tmp_path / "nothing", "--resolution", 8, "--out", tmp_path / "x"), "does not exist"),
        ((tmp_path / "empty", "--resolution", 8, "--out", tmp_path / "x"), "has no sub-folders"),
        ((photos, "--resolution", 2**20, "--out", tmp_path / "x"), "GB free"),
        ((tmp_path / "junk", "--resolution", 8, "--out", tmp_path / "x", "--skip-broken"), "every image of"),
    ]:
        assert run("prepare", *arguments) == 2, message
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x").exists()
    assert (foreign / "mine.txt").exists()


def test_a_torn_line_of_the_journal_spoils_no_other(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin({"identity": "x"})
    journal.add({"start": 0})
    journal.close()
    (tmp_path / "done.jsonl").write_text((tmp_path / "done.jsonl").read_text() + '\n{"sta')
    journal = Journal(tmp_path)
    assert (journal.header, journal.entries) == ({"identity": "x"}, [{"start": 0}])
    journal.add({"start": 5})
    journal.close()
    assert Journal(tmp_path).entries == [{"start": 0}, {"start": 5}]
    (tmp_path / "done.jsonl").write_text('\n{"identi')
    assert Journal(tmp_path).header is None


def test_two_at_once_are_refused(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    held = lock(tmp_path / "out")
    second = start("prepare", photos, "--resolution", 8, "--out", tmp_path / "out")
    second.join()
    held.close()
    assert second.exitcode == 2
    assert "another biggan-data prepare is writing" in " ".join(capfd.readouterr().err.split())


def test_ctrl_c_keeps_what_is_packed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photos = write_folder(tmp_path / "photos", {"cat": 60})

    def slow(data: bytes) -> np.ndarray:
        time.sleep(0.02)
        return decode(data)

    process = start("prepare", photos, "--resolution", 8, "--out", tmp_path / "out", "--workers", 2, decode=slow)
    journal = tmp_path / "out.preparing" / "done.jsonl"
    while not (journal.exists() and '"stop"' in journal.read_text()):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to workers too
    process.join()
    assert process.exitcode == 130
    error = " ".join(capfd.readouterr().err.split())
    assert "stopped. What is packed is kept, and the same command continues" in error
    assert "checkpoint" not in error
    assert '"stop"' in journal.read_text()
    assert not (tmp_path / "out").exists()


def test_help_is_instant_and_complete() -> None:
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "biggan.cli.data", "prepare", "--help"],
        capture_output=True,
        text=True,
    )
    for option in ("--resolution", "--out", "--workers", "--skip-broken", "--top-classes", "--val-fraction"):
        assert option in shown.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in shown.stderr.splitlines()}
    assert not imported & {"torch", "cv2", "pyarrow", "numpy"}  # what takes seconds
