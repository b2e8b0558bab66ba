"""A change of somebody's own: its code is kept with the run, checked at a resume, and handed to workers."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from biggan.errors import UserError
from biggan.run.checkpoint import checkpoint_paths, newest_checkpoint, read_checkpoint
from biggan.run.directory import RunDirectory
from interventions.branch.branch import continue_branch, open_branch, plan_branch
from interventions.branch.parent import find_parent
from interventions.branch.timeline import Timed
from interventions.changes import CHANGES, load_file, make_change
from interventions.cli.main import main
from interventions.study import launch
from interventions.study.permit import Permit
from interventions.study.worker import main as work

SHRINK = """
from dataclasses import dataclass
from interventions import Change

@dataclass(frozen=True)
class Shrink(Change, name="shrink-own"):
    "Multiply D's weights by a factor."
    factor: float

    def operate(self, state, config):
        for weight in state.D.parameters():
            weight.mul_(self.factor)
        return {}
"""
EDITED = SHRINK.replace("self.factor)", "self.factor / 2)")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "shrink.py").write_text(SHRINK)
    yield tmp_path / "shrink.py"
    CHANGES.pop("shrink-own", None)


def forget() -> None:
    """As in another process, which has loaded nothing yet."""
    CHANGES.pop("shrink-own", None)


def branch_with(finished: Path, file: Path, out: Path, *, starts: tuple[int, ...], steps: int = 3) -> Path:
    """A branch of step 1 that is at its beginning still, with the change from each of these further steps on."""
    load_file(file)
    timed = [Timed(make_change("shrink-own", factor), 1 + at) for at, factor in zip(starts, (0.5, 0.25), strict=False)]
    session = open_branch(plan_branch(find_parent(finished, at=1), timed, steps, out))
    session.run.unlock()
    forget()
    return out


def resume(run: Path, *words: str) -> int:
    return main(["--resume", str(run), "--quiet", *words])


def weight(run: Path) -> torch.Tensor:
    return newest_checkpoint(run)[0].tensors["D.linear.weight"]


def test_text_and_digest_are_kept_in_the_run(finished: Path, file: Path, tmp_path: Path) -> None:
    import hashlib

    facts = json.loads((branch_with(finished, file, tmp_path / "b", starts=(0,)) / "run.json").read_text())
    digest = hashlib.blake2b(file.read_bytes(), digest_size=32).hexdigest()
    (entry,) = facts["changes"]
    assert (entry["defined_in"], entry["code"]) == (str(file), digest)
    assert facts["code"] == {digest: {"file": "shrink.py", "source": SHRINK}}


def test_a_change_of_long_ago_needs_its_file_no_more(finished: Path, file: Path, tmp_path: Path) -> None:
    run = branch_with(finished, file, tmp_path / "b", starts=(0,))
    file.unlink()
    assert resume(run) == 0
    assert main(["--ckpt", str(run), "--freeze=D", "--steps=1", "--quiet", "--out", str(tmp_path / "c")]) == 0
    assert main(["replay", "--ckpt", str(run), "--at=3"]) == 0
    assert main(["compare", str(run), str(tmp_path / "c")]) == 0


def test_one_that_is_still_to_come_needs_it_and_says_how(
    finished: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = branch_with(finished, file, tmp_path / "b", starts=(0, 1))
    assert resume(run) == 2
    assert f"--change-file {file}" in " ".join(capsys.readouterr().err.split())
    command = RunDirectory(run).continued_by(1)
    assert command is not None
    assert shlex.split(command) == ["biggan-intervene", "--resume", str(run), "--change-file", str(file)]
    assert main([*shlex.split(command)[1:], "--quiet"]) == 0
    whole = branch_with(finished, file, tmp_path / "whole", starts=(0, 1))
    load_file(file)
    assert continue_branch(whole, quiet=True) == "finished"
    assert torch.equal(weight(run), weight(whole))


def test_edited_code_is_refused_unless_it_is_allowed_and_then_recorded(
    finished: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = branch_with(finished, file, tmp_path / "b", starts=(0, 1))
    before = (run / "run.json").read_text(), sorted(checkpoint_paths(run))
    file.write_text(EDITED)
    assert resume(run, "--change-file", str(file)) == 2
    assert "--allow-change" in " ".join(capsys.readouterr().err.split())
    assert ((run / "run.json").read_text(), sorted(checkpoint_paths(run))) == before
    forget()
    assert resume(run, "--change-file", str(file), "--allow-change") == 0
    (event,) = RunDirectory(run).events_that_hold("other_code")
    now = RunDirectory(run).facts()
    assert event["changes"]["shrink-own"] == [json.loads(before[0])["changes"][0]["code"], now["changes"][1]["code"]]
    assert {one["source"] for one in now["code"].values()} == {SHRINK, EDITED}
    forget()
    assert resume(run, "--change-file", str(file), "--steps=4") == 0, "it goes on with the code that was allowed"


def test_a_worker_refuses_edited_code_before_it_runs_it(
    finished: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    found = load_file(file)
    file.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'marker')!r}).touch()\n{SHRINK}")
    words = Permit.of([found]).words()
    assert words == ["--change-file", str(file), found.digest]
    assert work([str(tmp_path), "a/b", str(os.getppid()), *words]) == 2
    assert "has changed since the runs began" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "marker").exists()


def test_the_launcher_hands_the_files_to_every_worker(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On its command line, also to one that is restarted; and Python looks for no module where it is started."""
    worker, said = tmp_path / "worker", tmp_path / "said"
    worker.write_text(f'#!/bin/sh\necho "$PYTHONSAFEPATH" "$@" >> {said}\n')
    worker.chmod(0o755)
    monkeypatch.setattr(launch.sys, "executable", str(worker))
    permit = Permit.of([load_file(file)], "own:Net", trust_cache=True)
    start = launch.make_start(None, tmp_path, 1, permit)
    for _ in range(2):
        start(tmp_path, "a/b").process.wait()
    first, second = said.read_text().splitlines()
    assert first == second
    assert first.startswith("1 -m interventions.study.worker")
    digest = permit.change_files[0][1]
    assert first.endswith(f"--change-file {file} {digest} --features=own:Net --trust-cache")


PLAN = "title: p\nseeds: 0\nentries:\n  shrunk: {changes: [shrink-own: 0.5]}\n"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_plan_with_code_of_ones_own_runs_in_workers(
    finished: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "p.yaml").write_text(PLAN)
    line = ["--plan", str(tmp_path / "p.yaml"), "--ckpt", str(finished), "--at=1", "--steps=1", "--quiet"]
    line += ["--out", str(tmp_path / "plan")]
    assert main(line) == 2
    assert "unknown change 'shrink-own'" in " ".join(capsys.readouterr().err.split())
    assert main([*line, "--change-file", str(file)]) == 0
    (run,) = tmp_path.glob("plan/*/shrunk")
    born = read_checkpoint(run / "checkpoints/step-00000001.safetensors").tensors["D.linear.weight"]
    parent = read_checkpoint(finished / "checkpoints/step-00000001.safetensors").tensors["D.linear.weight"]
    assert torch.equal(born, parent / 2)
    assert [one["source"] for one in RunDirectory(run).facts()["code"].values()] == [SHRINK]
    file.write_text(EDITED)
    capsys.readouterr()
    assert main([*line, "--change-file", str(file)]) == 2
    assert "has changed since the plan" in " ".join(capsys.readouterr().err.split())


def test_a_plan_and_a_change_by_name_import_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="taken from the command line alone"):
        make_change(f"{tmp_path}/evil.py:Evil", 1)
