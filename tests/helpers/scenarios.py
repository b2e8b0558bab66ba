"""The commands that the campaign of faults disturbs, what repairs each, and what must be the same afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from faulty import Command, Fault, Outcome, import_as_after, run_forked, start_forked, wait_for
from ranks import free_port

from biggan.run.checkpoint import peek

TINY = [
    *("--model.resolution=8", "--model.ch_G=4", "--model.ch_D=4", "--train.batch=8", "--device=cpu", "--threads=1"),
    *("--tensorboard.every=0", "--samples.every=2", "--checkpoint.every=2", "--spectra.every=2"),
    *("--samples.standing_passes=2", "--discriminator_view.every=3", "--quiet"),
]
EVALUATED = ["--eval.every=3", "--eval.samples=1000", "--checkpoint.best=true", "--samples.every=0"]
SCORED = ["--samples", "1000", "--standing-passes", "2"]

IN_PASSING = {"resumed", "interrupted", "started", "paused"}
"""Events that tell of the fault itself, or of how a session began."""


@dataclass(frozen=True)
class Scenario:
    """A command, the folder it works in, and how a user repairs what disturbed it."""

    name: str
    needs: str
    """The template that its folder is a copy of."""
    command: Command
    repair: Callable[[Path], Command]
    """The command to give after a fault, in a folder that may hold anything the fault left."""
    stoppable: bool = False
    """Whether a signal lets it finish its step and save (exit 130)."""
    rare: bool = False
    """Whether it takes long, so that fewer of its faults are tried."""


def _again(command: Command) -> Callable[[Path], Command]:
    return lambda folder: command


def _branch_or_resume(command: Command, branch: str) -> Callable[[Path], Command]:
    return lambda folder: (
        ("biggan-intervene", ["--resume", branch, "--quiet"]) if (folder / branch).exists() else command
    )


_TRAIN: Command = ("biggan-train", ["--out", "run", "--steps=6", *TINY])
_TRAIN_AGAIN: Command = ("biggan-train", [*_TRAIN[1], "--resume-or-start"])
_SCORED_TRAIN: Command = ("biggan-train", ["--out", "run", "--steps=6", *TINY, *EVALUATED])
_BRANCH: Command = (
    "biggan-intervene",
    ["--ckpt", "run", "--at", "2", "--freeze", "D", "--steps", "3", "--out", "branch", "--quiet"],
)
_SEQUENCE: Command = (
    "biggan-intervene",
    "--ckpt run --at 2 --lr G=x2 --until 2 --then --r1 1 --from 2 --steps 4 --out branch --quiet".split(),  # noqa: SIM905
)
_PLAN: Command = (
    "biggan-intervene",
    ["--ckpt", "run", "--plan", "plan.yaml", "--at", "2", "--steps", "2", "--out", "plan", "--quiet"],
)
PLAN_TEXT = "title: Two branches\nseeds: 0\nentries:\n  freeze-D: {changes: [freeze: D]}\n"
_SAMPLE: Command = ("biggan-sample", ["--ckpt", "run", "--out", "grid.png", "--standing-passes", "2"])
_EXPORT: Command = ("biggan-sample", ["--ckpt", "run", "--out", "many", "--num", "20", "--standing-passes", "2"])
_EVAL: Command = ("biggan-eval", ["--ckpt", "run", "--out", "scores", *SCORED])
_PREPARE: Command = ("biggan-data", ["prepare", "pictures", "--resolution", "8", "--out", "packed", "--workers", "1"])
_COMPARE: Command = ("biggan-intervene", ["compare", "branch", "control", "--out", "compared"])
_PLOT: Command = ("spectra", ["plot", "run", "--out", "figures", "--figure", "20"])

SCENARIOS = [
    Scenario("train", "empty", _TRAIN, _again(_TRAIN_AGAIN), stoppable=True),
    Scenario(
        "train, scored", "empty", _SCORED_TRAIN, _again(("biggan-train", [*_SCORED_TRAIN[1], "--resume-or-start"])),
        stoppable=True,
    ),
    Scenario("resume", "half", ("biggan-train", ["--resume", "run", "--steps=6", "--quiet"]),
             _again(("biggan-train", ["--resume", "run", "--steps=6", "--quiet"])), stoppable=True),
    Scenario("branch", "run", _BRANCH, _branch_or_resume(_BRANCH, "branch"), stoppable=True),
    Scenario("sequence of changes", "run", _SEQUENCE, _branch_or_resume(_SEQUENCE, "branch"), stoppable=True),
    Scenario("plan", "planned", _PLAN, _again(_PLAN), stoppable=True, rare=True),
    Scenario("sample", "run", _SAMPLE, _again(_SAMPLE)),
    Scenario("export", "run", _EXPORT, _again(_EXPORT)),
    Scenario("eval", "run", _EVAL, _again(_EVAL)),
    Scenario("prepare", "pictures", _PREPARE, _again(_PREPARE)),
    Scenario("compare", "branches", _COMPARE, _again(_COMPARE)),
    Scenario("plot", "run", _PLOT, _again(_PLOT)),
]  # fmt: skip


class Stage:
    """Folders to disturb: templates made once, and what each scenario leaves where nothing disturbs it.

    A `brief` one imports what a few cases need, and no more.
    """

    def __init__(self, root: Path, *, brief: bool = False) -> None:
        self.root = root
        self._templates: dict[str, Path] = {}
        self._left: dict[str, tuple[dict[str, Any], int]] = {}
        self._cases = 0
        (root / "empty").mkdir(parents=True)
        os.environ["BIGGAN_CACHE"] = str(root / "cache")
        compare: Command = ("biggan-intervene", ["compare", "branch"])
        self._warm((_TRAIN, _BRANCH) if brief else (_SCORED_TRAIN, _SAMPLE, _BRANCH, compare, _PLOT, _EVAL))

    def _warm(self, commands: Sequence[Command]) -> None:
        """Import here what the commands import late; where they score, the classifier of the cache is trained."""
        folder = self.copy("empty")
        with _inside(folder):
            for command in commands:
                outcome = import_as_after(command, folder)
                assert outcome.code == 0, outcome.text

    def template(self, name: str) -> Path:
        """The template folder `name`."""
        if name in self._templates or name == "empty":
            return self._templates.get(name, self.root / "empty")
        before = {"half": "empty", "run": "empty", "pictures": "empty", "branches": "run", "planned": "run"}[name]
        folder = self.copy(before, self.root / name)
        if name == "planned":
            (folder / "plan.yaml").write_text(PLAN_TEXT)
        if name == "pictures":
            _draw_pictures(folder / "pictures")
        commands = {
            "half": [("biggan-train", ["--out", "run", "--steps=3", *TINY])],
            "run": [_TRAIN],
            "branches": [_BRANCH, ("biggan-intervene", ["--ckpt", "run", "--at", "2", "--control", "--steps", "3",
                                                        "--out", "control", "--quiet"])],
        }.get(name, [])  # fmt: skip
        for command in commands:
            outcome = self.run(command, folder)
            assert outcome.code == 0, outcome.text
        self._templates[name] = folder
        return folder

    def copy(self, name: str, target: Path | None = None) -> Path:
        """A fresh copy of a template."""
        self._cases += 1
        target = target or self.root / f"case-{self._cases}"
        shutil.copytree(self.template(name), target, symlinks=True)
        return target

    def run(self, command: Command, folder: Path, fault: Fault | None = None, *, seconds: float = 120) -> Outcome:
        """The command in `folder`."""
        with _inside(folder):
            return run_forked(command, fault, seconds=seconds)

    def run_pair(self, command: Command, folder: Path, delay: float) -> tuple[list[int], list[str]]:
        """The command twice in `folder`, the second `delay` seconds after the first: exit codes and last words."""
        with _inside(folder), tempfile.TemporaryFile() as one, tempfile.TemporaryFile() as other:
            first = start_forked(command, one.fileno())
            time.sleep(delay)
            second = start_forked(command, other.fileno())
            codes = [wait_for(child, 240) for child in (first, second)]
            texts = []
            for file in (one, other):
                file.seek(0)
                texts.append(file.read().decode(errors="replace")[-400:])
        return codes, texts

    def run_ranks(
        self, command: Command, folder: Path, faults: Mapping[int, Fault] = MappingProxyType({})
    ) -> list[int]:
        """The command on two ranks: their exit codes. After one has died the other is killed 20 seconds later."""
        port = free_port()

        def as_rank(rank: int) -> None:
            local = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in local.items()} | {"MASTER_ADDR": "127.0.0.1"})
            if rank in faults:
                faults[rank]()

        with _inside(folder), open(folder / ".." / "ranks.log", "ab") as log:
            children = [start_forked(command, log.fileno(), partial(as_rank, rank)) for rank in range(2)]
            return [wait_for(child, 20 if faults else 120) for child in children]

    def undisturbed(self, scenario: Scenario) -> tuple[dict[str, Any], int]:
        """What the scenario leaves undisturbed, and how many file operations it makes."""
        if scenario.name not in self._left:
            folder = self.copy(scenario.needs)
            outcome = self.run(scenario.command, folder)
            assert outcome.code == 0, outcome.text
            self._left[scenario.name] = snapshot(folder), outcome.operations
            shutil.rmtree(folder)
        return self._left[scenario.name]

    def disturb(
        self, scenario: Scenario, fault: Fault | None, allowed: Sequence[int], *, free: int | None = None
    ) -> list[str]:
        """Run the scenario with a fault, repair it, and list the promises that were broken.

        With `free` it runs on a file system of its own, with so many bytes free until it is repaired.
        """
        wanted, _ = self.undisturbed(scenario)
        folder = self.copy(scenario.needs)
        if free is None:
            return self._disturb(scenario, folder, fault, allowed, wanted)
        disk = folder.with_name(f"{folder.name}-disk")
        with mounted(disk):
            shutil.copytree(folder, disk / "x", symlinks=True)
            resize(disk, shutil.disk_usage(disk).used + free)
            return self._disturb(scenario, disk / "x", fault, allowed, wanted, lambda: resize(disk, 2**30))

    def _disturb(
        self,
        scenario: Scenario,
        folder: Path,
        fault: Fault | None,
        allowed: Sequence[int],
        wanted: dict[str, Any],
        relieve: Callable[[], None] = lambda: None,
    ) -> list[str]:
        broken = []
        outcome = self.run(scenario.command, folder, fault)
        relieve()
        if outcome.code not in allowed:
            broken.append(f"exit code {outcome.code}, expected one of {list(allowed)}: {outcome.text[-300:]}")
        if outcome.has_traceback:
            broken.append(f"a traceback: {outcome.text[-600:]}")
        repaired = self.run(scenario.repair(folder), folder)
        if repaired.code != 0:
            broken.append(f"the repair ended with {repaired.code}: {repaired.text[-600:]}")
        else:
            broken += differences(wanted, snapshot(folder))
        if not broken:
            shutil.rmtree(folder)
        return broken


def may_mount() -> bool:
    """Whether this user can mount a file system of limited size."""
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
        return tried.returncode == 0 and subprocess.run(["umount", folder], capture_output=True).returncode == 0


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """A file system in memory at `folder`, for the time of a `with`."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(folder: Path, size: int) -> None:
    """Let a mounted file system have `size` bytes in all."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


class _inside:
    """The working directory for the time of a `with`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.before = os.getcwd()
        os.chdir(self.folder)

    def __exit__(self, *error: object) -> None:
        os.chdir(self.before)


def _draw_pictures(folder: Path) -> None:
    """Two classes of six small pictures."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(draw.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(folder / name / f"{number}.png")


def snapshot(folder: Path) -> dict[str, Any]:
    """What every file below `folder` holds, in a form that does not depend on when and in how many sessions it came."""
    found: dict[str, Any] = {}
    started = "step-00000000.safetensors"  # of a run that a signal stopped before its first step
    for path in (one for one in sorted(folder.rglob("*")) if one.name != started):
        name = str(path.relative_to(folder))
        if path.is_dir() or name.endswith((".lock", "modules")) or {"skipped", "logs", "progress"} & set(path.parts):
            continue
        if path.name in ("launches.jsonl", "compare.csv"):  # they tell of each launch, and of times
            continue
        if path.suffix == ".safetensors" and "checkpoints" in path.parts:
            found[name] = peek(path).get("digest")
        elif path.name == "events.jsonl":
            found[name] = _events(path)
        elif path.name in ("run.json", "plan.json", "manifest.json", "job.json"):  # they name places and times
            found[name] = sorted(json.loads(path.read_text()))
        elif "records" in path.parts and path.suffix == ".arrow":
            found.setdefault(str(Path(name).parent), _record(path.parent.parent))
        elif path.name == "report.html":
            found[name] = "a page"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _events(path: Path) -> list[str]:
    """The events that hold, without times and what tells of the sessions."""
    kept = []
    for line in path.read_text().splitlines():
        event = json.loads(line)
        if event["event"] in IN_PASSING or event.get("superseded") or event["step"] == 0:
            continue
        kept.append(json.dumps({name: value for name, value in event.items() if name not in ("time", "seconds")}))
    return kept


def _record(run: Path) -> dict[str, str]:
    """A digest of each frame of the record."""
    import spectra

    frames = spectra.load(run)
    timed = ("seconds", "steps_per_second", "time")
    digests = {}
    for name in sorted(set(frames) - {"events"}):  # these are compared by themselves
        table = frames[name]
        if "name" in table.columns:
            table = table[~table["name"].str.contains("|".join(timed), na=False)]
        table = table.drop(columns=[column for column in table.columns if column in timed])
        digests[name] = hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()
    return digests


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """How two snapshots differ, in words."""
    said = [f"{name} is missing" for name in wanted if name not in found]
    said += [f"{name} is left over" for name in found if name not in wanted]
    for name in wanted:
        if name in found and wanted[name] != found[name]:
            said.append(f"{name} differs{_in_what(wanted[name], found[name])}")
    return said


def _in_what(one: Any, other: Any) -> str:
    if isinstance(one, list) and isinstance(other, list):
        lost = [line[:110] for line in one if line not in other]
        more = [line[:110] for line in other if line not in one]
        return f": lost {lost[:3]}, more {more[:3]}" if lost or more else ": other order or number"
    if isinstance(one, dict) and isinstance(other, dict):
        return f" in {[name for name in one if one[name] != other.get(name)]}"
    return ""
