"""Runs, plans and checkpoints of somebody else's that name code: no command and no public function runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import TINY

import interventions
import spectra
from biggan.cli.evaluate import eval_main
from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from biggan.config import to_dict
from biggan.errors import UserError
from biggan.run.checkpoint import read_checkpoint, save_checkpoint
from interventions.cli.main import main as intervene_main
from interventions.study.worker import run_job
from spectra.cli.commands import main as spectra_main

EVIL = '''
import pathlib
from dataclasses import dataclass
from torch import nn
from interventions import Change

pathlib.Path({marker!r}).touch()

class Evil(nn.Module):
    """Features."""

@dataclass(frozen=True)
class Worse(Change, name="evil-for-a-test"):
    """A change."""
    factor: float = 1.0

    def operate(self, state, config):
        return {{}}
'''


class Place:
    """Somebody else's files, and the file that is there once their code has run."""

    def __init__(self, folder: Path) -> None:
        self.marker, self.folder = folder / "marker", folder
        self.evil = folder / "evil_module_for_a_test.py"
        self.evil.write_text(EVIL.format(marker=str(self.marker)))
        self.run, self.plan, self.yaml = folder / "run", folder / "plan", folder / "evil.yaml"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("hostile")
    found = Place(folder)
    found.run.mkdir()
    assert (
        train_main(
            ["--out", str(folder / "own"), "--steps=4", "--quiet", "--checkpoint.every=1", "--checkpoint.keep=9", *TINY]
        )
        == 0
    )
    return found


def change(name: str, defined_in: Path | None, start: int) -> dict[str, Any]:
    home = {} if defined_in is None else {"defined_in": str(defined_in), "code": "0" * 64}
    return {"change": {name: {"factor": 1.0}}, "from": start, "until": None, **home, "fields": {}}


def make_hostile(place: Place, name: str) -> None:
    """The run, a branch of step 1 that says it was changed by `name` and will be again; its checkpoints and its
    configuration name a feature network; and a plan that is the same."""
    import shutil

    shutil.rmtree(place.run)
    shutil.copytree(place.folder / "own", place.run)
    facts = json.loads((place.run / "run.json").read_text())
    home = None if ":" in name else place.evil
    entries = [change(name, home, start) for start in (1, 2, 3, 4, 5)]
    lineage = {"path": str(place.run / "checkpoints/step-00000001.safetensors"), "digest": "0", "step": 1}
    facts |= {"parent": lineage, "changes": entries, "inherited_changes": entries}
    facts["code"] = {"0" * 64: {"file": place.evil.name, "source": place.evil.read_text()}}
    (place.run / "run.json").write_text(json.dumps(facts))
    for path in sorted((place.run / "checkpoints").glob("*.safetensors")):
        found = read_checkpoint(path)
        values = to_dict(found.config)
        values["eval"] |= {"features": f"{place.evil.stem}:Evil", "every": 1}
        save_checkpoint(path, found.tensors, found.step, values)
        (place.run / "config.yaml").write_text(yaml.safe_dump(values))
    events = [{"event": "collapse", "step": 4, "time": 0, "onset": 3, "details": {}}]
    with open(place.run / "events.jsonl", "a", encoding="utf-8") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    place.yaml.write_text(yaml.safe_dump({"entries": {"a": {"changes": [{name: 1.0}]}}, "seeds": 0}))
    make_hostile_plan(place, entries)


def make_hostile_plan(place: Place, entries: list[dict[str, Any]]) -> None:
    import shutil

    shutil.rmtree(place.plan, ignore_errors=True)
    place.plan.mkdir()
    first = place.run / "checkpoints/step-00000001.safetensors"
    base = {"name": "run", "checkpoint": str(first), "digest": read_checkpoint(first).digest, "step": 1, "run": None}
    jobs = [
        {"base": "run", "entry": "control", "kind": "control", "steps": 3, "changes": []},
        {"base": "run", "entry": "a", "kind": "branch", "steps": 3, "changes": entries[:1]},
        {"base": "run", "entry": "b", "kind": "scratch", "steps": 3, "changes": entries[:1]},
    ]
    plan = {"format": "interventions-plan-2", "plan": "p", "title": "p", "bases": [base], "jobs": jobs, "notes": []}
    (place.plan / "plan.json").write_text(json.dumps({**plan, "settings": {}, "figures": []}))
    shutil.copytree(place.run, place.plan / "run" / "a")
    shutil.copytree(place.run, place.plan / "run" / "control")


def commands(place: Place) -> list[tuple[Callable[[list[str]], int], list[str]]]:
    run, first, out = (
        str(place.run),
        str(place.run / "checkpoints/step-00000001.safetensors"),
        str(place.folder / "out"),
    )
    quick = ["--steps=1", "--quiet", "--out", out]
    plan = ["--ckpt", run, "--at=1", "--steps=1", "--seeds=0"]
    return [
        (train_main, ["--resume", run, "--steps=5", "--quiet"]),
        (train_main, ["--resume", run, "--dry-run"]),
        (train_main, ["--config", f"{run}/config.yaml", *quick]),
        (intervene_main, ["--ckpt", run, "--control", "--at=2", "--dry-run"]),
        (intervene_main, ["--ckpt", first, "--control", *quick]),
        (intervene_main, ["--ckpt", first, "--freeze=D", "--dry-run"]),
        (intervene_main, ["--ckpt", first, "--freeze=D", *quick]),
        (intervene_main, ["--resume", run, "--steps=9", "--quiet"]),
        (intervene_main, ["--plan", str(place.yaml), *plan, "--dry-run"]),
        (intervene_main, ["--plan", str(place.yaml), *plan, "--quiet", "--out", str(place.plan)]),
        (intervene_main, ["compare", run]),
        (intervene_main, ["compare", str(place.plan)]),
        (intervene_main, ["claims", str(place.plan)]),
        (intervene_main, ["reproduce", "--out", out, "--add", str(place.plan), "--dry-run"]),
        (intervene_main, ["reproduce", "--out", out, "--only", str(place.yaml), "--dry-run"]),
        (intervene_main, ["rescue", run, "--dry-run"]),
        (intervene_main, ["rescue", run, "--recipes", str(place.yaml), "--dry-run"]),
        (intervene_main, ["replay", "--ckpt", run, "--at=3"]),
        (sample_main, ["--ckpt", first, "--out", f"{out}.png", "--standing-passes=1"]),
        (sample_main, ["--film-strip", run, "--out", f"{out}.png", "--standing-passes=1"]),
        (eval_main, ["--ckpt", first, "--samples=20", "--standing-passes=1", "--out", out]),
        (spectra_main, ["scan", first]),
        (spectra_main, ["events", run]),
        (spectra_main, ["detect", run]),
        (spectra_main, ["plot", run, "--out", out]),
    ]


NAMES = ["evil-for-a-test", "{evil}:Worse", "evil_module_for_a_test:Worse"]


@pytest.mark.parametrize(
    ("name", "only"),
    [
        ("evil-for-a-test", ["compare", "replay", "--resume", "--freeze=D --dry-run"]),
        *(pytest.param(name, [""], marks=pytest.mark.slow) for name in NAMES),
    ],
)
def test_no_command_runs_what_a_run_or_a_plan_names(
    place: Place, name: str, only: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.syspath_prepend(place.folder)  # so that the module could be imported by its name
    monkeypatch.chdir(place.folder)
    make_hostile(place, name.format(evil=place.evil))
    for main, line in commands(place):
        if not any(words in " ".join(line) for words in only):
            continue
        try:
            code = main(line)
        except SystemExit as error:
            code = int(str(error.code))
        assert code in (0, 1, 2), line
        assert not place.marker.exists(), line
    assert "--change-file" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["evil-for-a-test", "{evil}:Worse"])
def test_no_public_function_runs_it(place: Place, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(place.folder)
    make_hostile(place, name.format(evil=place.evil))
    calls: list[Callable[[], object]] = [
        lambda: interventions.find_parent(place.run, at=2).open_changes(),
        lambda: interventions.continue_branch(place.run, steps=9, quiet=True),
        lambda: interventions.compare_runs([place.run]),
        lambda: interventions.compare_plan(place.plan),
        lambda: interventions.replay_step(place.run, 3),
        lambda: interventions.plan_rescue(place.run),
        lambda: interventions.read_plan(str(place.yaml)),
        lambda: interventions.resolve(interventions.read_plan(str(place.yaml)), [str(place.run)], steps=1),
        lambda: interventions.make_change(f"{place.evil}:Worse", 1.0),
        lambda: run_job(place.plan, "run/a"),
        lambda: run_job(place.plan, "run/b"),
        lambda: spectra.load(place.run),
        lambda: spectra.detect_run(place.run),
    ]
    for call in calls:
        with suppress(UserError):
            call()
        assert not place.marker.exists()
