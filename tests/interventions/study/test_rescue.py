"""`biggan-intervene rescue`: from which checkpoint, how far, what it prints, going on after a kill, and refusals."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import TINY

from biggan.cli.train import train_main
from biggan.observers import evaluation as observer
from biggan.run.checkpoint import all_checkpoints, checkpoint_paths, read_checkpoint
from biggan.run.directory import RunDirectory
from interventions.cli.main import main
from interventions.study.rescue import plan_rescue
from interventions.study.worker import run_job

OWN = "--eval.features=own_features:Pixels"
"""Code: every call that scores must name it."""
OPTIONS = [
    *TINY, "--eval.every=2", OWN, "--checkpoint.every=0", "--checkpoint.keep=1",
    "--checkpoint.ring_every=2", "--checkpoint.ring_keep=6", "--ema.start=4", "--monitor=none", "--quiet",
]  # fmt: skip
ONSET, BEGIN, END = 20, 18, 40
RECIPES = """
title: two
seeds: 1
settings: {train.on_alarm: stop, checkpoint.ring_every: 0}
entries:
  G-rate-halved: {changes: [lr: G=/2]}
  dropout: {changes: [dropout: 0.8]}
"""


class Scripted:
    """FIDs by the run that is being trained: 20, and from a step on 500."""

    def __init__(self) -> None:
        self.falls = {"base": ONSET, "dropout": 24, "control-seed-1": 22, "G-rate-halved": 1000}
        self.now = "base"

    def __call__(self, evaluator: object, network: object, settings: object, step: int, *rest: object) -> dict:
        fallen = step > self.falls.get(self.now, END)
        return {"fid": 500.0 if fallen else 20.0, "spread_share": 0.5}


@pytest.fixture(autouse=True, scope="module")
def _no_waiting() -> Iterator[None]:
    """Jobs that run at once are not waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interventions.study.launch.POLL_SECONDS", 0.01)
        yield


@pytest.fixture(scope="module")
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture(autouse=True)
def _scripted(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer.Evaluator, "scores", lambda self, *rest: scripted(self, *rest))


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory: pytest.TempPathFactory, scripted: Scripted) -> Path:
    """A run that collapses at step 20, which is said at step 24; nobody writes into it."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("rescue") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observer.Evaluator, "scores", lambda self, *rest: scripted(self, *rest))
        assert train_main(["--out", str(run), "--steps=42", *OPTIONS]) == 0
    return run


class InThisProcess:
    """Jobs that run at once; `interrupt` is the job at which the launcher gets Ctrl-C, before it runs."""

    def __init__(self, scripted: Scripted, interrupt: str = "") -> None:
        self.scripted, self.interrupt, self.begun = scripted, interrupt, []

    def __call__(self, folder: Path, key: str) -> InThisProcess:
        self.begun.append(key)
        self.code = 130
        if key == self.interrupt:
            os.kill(os.getpid(), signal.SIGINT)
            return self
        self.scripted.now = key.split("/")[1]
        self.code = {"finished": 0, "stopped": 0}[run_job(folder, key)]
        self.scripted.now = "base"
        return self

    def poll(self) -> int:
        return self.code

    def stop(self) -> None:
        pass


def start_with(start: InThisProcess, monkeypatch: pytest.MonkeyPatch) -> InThisProcess:
    monkeypatch.setattr("interventions.study.launch.make_start", lambda *rest: start)
    return start


def test_the_end_of_a_collapsed_run_offers_a_rescue_and_a_control_that_work(
    collapsed: Path, scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """They come first, quoted; both are what the user can give, here with --dry-run."""
    scripted.now = "base"
    run = tmp_path / "a run"
    options = [one for one in OPTIONS if one != "--quiet"]
    assert train_main(["--out", str(run), "--steps=42", *options]) == 0
    ending = capsys.readouterr().out.split("finished at")[1]
    assert f"  collapse    began at step {ONSET}\n" in ending
    rescue, control, *rest = ending.split("next:\n")[1].splitlines()
    features = OWN.replace("=", " ")
    assert rescue == f"  biggan-intervene rescue '{run}' {features}"
    first = min(all_checkpoints(run))
    assert control == (
        f"  biggan-intervene --ckpt '{run}' --before-collapse {ONSET - first} --control --steps {42 - first} {features}"
    )
    assert not any("biggan-intervene" in line for line in rest)
    for line in (rescue, control):
        assert main([*shlex.split(line)[1:], "--dry-run"]) == 0


def test_a_rescue_starts_before_the_onset_and_lasts_half_of_the_healthy_time_longer(
    collapsed: Path, tmp_path: Path
) -> None:
    (recipes := tmp_path / "two.yaml").write_text(RECIPES)
    found = plan_rescue(collapsed)
    assert (found.onset, found.begin, found.end) == (ONSET, BEGIN, END)  # here ten evaluations, more than half of 20
    assert Path(found.resolved.bases[0].checkpoint).parent.name == "frozen-00000024"
    assert plan_rescue(collapsed, str(recipes), before=5).begin == 14
    assert plan_rescue(collapsed, str(recipes), before=0).begin == ONSET
    names = [job.name for job in found.resolved.jobs]
    assert names[0] == "control-seed-1"
    assert {"G-rate-halved", "both-rates-halved", "small-R1", "dropout", "more-D-steps", "smaller-batch"} <= set(names)
    assert "average-as-G" in names
    assert "control" not in names, "the collapsed run again"
    assert all(found.resolved.settings[name] == "stop" for name in ("train.on_alarm",))


def test_after_a_kill_the_same_command_goes_on_ranks_and_its_command_works(
    collapsed: Path, scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    recipes = tmp_path / "two.yaml"
    recipes.write_text(RECIPES)
    line = ["rescue", str(collapsed), "--recipes", str(recipes), "--out", str(tmp_path / "out"), OWN]
    first = start_with(InThisProcess(scripted, interrupt="run/G-rate-halved"), monkeypatch)
    assert main(line) == 130
    assert first.begun == ["run/control-seed-1", "run/G-rate-halved"]
    said = capsys.readouterr().out
    again = f"biggan-intervene {shlex.join(line)}"
    assert f"interrupted; every branch saved its last step. To go on:\n  {again}\n" in said
    assert "(2 branches are not judged)" in said
    second = start_with(InThisProcess(scripted), monkeypatch)
    assert main(line) == 0
    assert second.begun == ["run/G-rate-halved", "run/dropout"]
    said = capsys.readouterr().out
    rows = [text.split("  ")[0].strip() for text in said.splitlines() if " yes " in text or " no " in text]
    assert rows == ["G rate halved", "dropout", "unchanged, another seed", "unchanged"]
    assert "1 of 2 recipes survived; unchanged under another seed the run collapsed again." in said
    (command,) = [text.strip() for text in said.splitlines() if text.startswith("  biggan-train")]
    assert RunDirectory(tmp_path / "out/run/dropout").events()[-1]["reason"] == "alarm"
    scripted.now = "G-rate-halved"
    try:
        assert train_main([*shlex.split(command)[1:], "--quiet"]) == 0
    finally:
        scripted.now = "base"
    last = read_checkpoint(checkpoint_paths(tmp_path / "out/run/G-rate-halved")[-1])
    assert (last.step, last.config.steps) == (42, 42)
    assert (last.config.train.on_alarm, last.config.checkpoint.ring_every) == ("continue", 2)
    assert last.config.optim.G.lr == 0.5 * RunDirectory(collapsed).read_config().optim.G.lr
    assert main([*line, "--json"]) == 0  # nothing is left to do
    found = json.loads(capsys.readouterr().out)
    assert (found["winner"], found["onset"], found["healthy_fid"]) == ("G rate halved", ONSET, 20.0)
    assert [row["survived"] for row in found["rows"]] == [True, False, False, False]
    assert main(["compare", str(tmp_path / "out")]) == 0


def test_where_nothing_survives_it_says_so(
    collapsed: Path, scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    recipes = tmp_path / "one.yaml"
    recipes.write_text("seeds: 1\nsettings: {train.on_alarm: stop}\nentries: {dropout: {changes: [dropout: 0.8]}}\n")
    start_with(InThisProcess(scripted), monkeypatch)
    assert (
        main(["rescue", str(collapsed), "--recipes", str(recipes), "--out", str(tmp_path / "out"), "--quiet", OWN]) == 1
    )
    said = " ".join(capsys.readouterr().out.split())
    assert "Nothing rescued the run from step 18." in said
    assert "to go on" not in said


def test_a_dry_run_shows_the_branches_and_writes_nothing(collapsed: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["rescue", str(collapsed), "--dry-run"]) == 0
    assert "run/both-rates-halved" in capsys.readouterr().out
    assert not collapsed.with_name("run-rescue").exists()


def test_what_cannot_be_rescued_is_refused(collapsed: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    well, lost = tmp_path / "well", tmp_path / "lost"
    for copy, drop in ((well, "evaluation"), (lost, "")):
        shutil.copytree(collapsed, copy)
        lines = (copy / "events.jsonl").read_text().splitlines(keepends=True)
        kept = [text for text in lines if json.loads(text)["event"] not in (drop, "collapse" if drop else "")]
        (copy / "events.jsonl").write_text("".join(kept))
    for path in [path for path in lost.rglob("step-*.safetensors") if int(path.stem[5:]) < ONSET]:
        path.unlink()
    scratch = tmp_path / "scratch.yaml"
    scratch.write_text("entries: {R1: {from: scratch, changes: [r1: 1]}}\n")
    for line, words in {
        (str(well),): "no collapse was detected in",
        (str(lost),): "collapsed at step 20, and has no checkpoint 1 steps before that",
        (str(tmp_path),): "is not a run directory",
        (str(collapsed), "--steps=2"): "Give at least 22",
        (str(collapsed), f"--recipes={scratch}"): "trains from scratch",
        (str(collapsed), "--recipes=recsue"): "did you mean 'rescue'",
        (str(collapsed), "--jobs=0"): "--jobs is 0",
        (str(collapsed), "--seeds=0"): "--seeds is 0",
        (str(collapsed), "--recipe=x"): "did you mean '--recipes'",
    }.items():
        try:
            code = main(["rescue", *line])
        except SystemExit as ended:
            code = ended.code
        assert code == 2, line
        assert words in " ".join(capsys.readouterr().err.split()), line
    assert not list(tmp_path.glob("*-rescue"))


def test_a_shipped_recipe_that_this_run_cannot_have_is_a_note(tmp_path: Path, scripted: Scripted) -> None:
    """An odd batch has no half."""
    run = tmp_path / "odd"
    assert train_main(["--out", str(run), "--steps=26", *OPTIONS, "--train.batch=7"]) == 0
    found = plan_rescue(run)
    assert "smaller-batch" not in [job.entry for job in found.resolved.jobs]
    assert any("smaller-batch is skipped: entry smaller-batch" in note for note in found.resolved.notes)


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys
from interventions.cli.main import main
try:
    main(["rescue", "--help"])
except SystemExit:
    pass
heavy = {"torch", "pandas", "pyarrow", "matplotlib", "scipy"} & set(sys.modules)
sys.exit(f"loaded: {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--recipes" in done.stdout


def test_an_interrupted_plan_prints_its_command(
    collapsed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from interventions.study.launch import Outcome

    monkeypatch.setattr("interventions.study.launch.launch", lambda *rest, **how: Outcome(interrupted=True))
    line = ["--ckpt", str(collapsed), "--at", "18", "--lr=G=x2", "--seeds=1", "--steps=4", OWN]
    line += ["--out", str(tmp_path / "a plan"), "--jobs", "1"]
    assert main(line) == 130
    assert capsys.readouterr().out.endswith(f"To go on:\n  biggan-intervene {shlex.join(line)}\n")
