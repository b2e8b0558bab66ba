"""Thousands of faults, each with the promise that it must not break, and a table of what was found.

`pytest -m campaign -n 0 -s tests/campaigns/test_faults.py` runs all of them, in about an hour on one core; `--cases N`
runs N of each promise. One of each is run by default. A command runs in a forked process; a fault comes before its
n-th file operation, for every n. Then the command is repaired as a user would. Everything on the disk must then be as
if nothing had happened: checkpoints by their digests, the record by its rows, events, pictures, tables, and no file
left over.
"""

from __future__ import annotations

import errno
import functools
import random
import resource
import shutil
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from damages import DAMAGED, DAMAGES, READERS, damage, reads
from faulty import Command, Fault, killed_after, killed_before, limited, open_descriptors, refused, signalled_before
from fuzzing import fuzzed
from scenarios import SCENARIOS, TINY, Scenario, Stage, differences, may_mount, snapshot

DEFAULT_CASES = 1
QUICK = ("train", "branch", "sample", "export", "prepare")
"""The scenarios that the default share is of: without a fault, the others alone take half a minute. Repairs resume."""
Case = tuple[str, Callable[[], list[str]]]
"""What the fault is, and a function that tries it and returns the promises that were broken."""

CAMPAIGN = [pytest.mark.campaign, pytest.mark.timeout(0)]  # on a busy machine a promise takes an hour
share = pytest.mark.parametrize(
    "share", [pytest.param(DEFAULT_CASES, id="share"), pytest.param(None, id="all", marks=CAMPAIGN)]
)


def scenarios(share: int | None) -> list[Scenario]:
    """Those that the share is of; all of them in the campaign."""
    return [one for one in SCENARIOS if share is None or one.name in QUICK]


class Tally:
    """For each promise how many faults were tried, and which broke it."""

    def __init__(self) -> None:
        self.tried: dict[str, int] = defaultdict(int)
        self.broken: dict[str, list[str]] = defaultdict(list)

    def table(self) -> str:
        """The table, a line a promise, and below it each broken one."""
        lines = [f"{'promise':64} {'tried':>6} {'kept':>6} {'broken':>6}"]
        for promise, tried in self.tried.items():
            broken = len(self.broken[promise])
            lines.append(f"{promise:64} {tried:6} {tried - broken:6} {broken:6}")
        broken = sum(map(len, self.broken.values()))
        lines.append(f"{'all':64} {sum(self.tried.values()):6} {sum(self.tried.values()) - broken:6} {broken:6}")
        return "\n".join([*lines, *(f"{promise}: {one}" for promise, all_ in self.broken.items() for one in all_)])


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    found = Tally()
    yield found
    print(f"\n{found.table()}")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stage]:
    brief = not any(one.get_closest_marker("campaign") for one in request.session.items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGGAN_CACHE", "set by the stage")
        yield Stage(tmp_path_factory.mktemp("faults") / "stage", brief=brief)


@pytest.fixture
def attempt(request: pytest.FixtureRequest, tally: Tally) -> Callable[[str, list[Case], int | None], None]:
    """Try a promise's cases, or a seeded choice of so many of them."""

    def run(promise: str, cases: list[Case], most: int | None) -> None:
        most = most or request.config.getoption("--cases")
        chosen = cases if most is None else random.Random(promise).sample(cases, min(most, len(cases)))
        assert chosen
        broken = []
        for what, tried in chosen:
            tally.tried[promise] += 1
            if found := tried():
                broken.append(f"{what}: {'; '.join(found)}")
            print(f"broken: {broken[-1]}" if found else f"kept: {what}", flush=True)  # a campaign is long
        tally.broken[promise] += broken
        assert not broken, "\n".join(broken)

    return run


def by_operation(
    stage: Stage, scenario: Scenario, fault: Callable[[int], Fault], allowed: list[int], every: int = 1
) -> list[Case]:
    """A case for each file operation of the scenario."""
    _, operations = stage.undisturbed(scenario)
    every *= 6 if scenario.rare else 1
    return [
        (f"{scenario.name}, operation {number}", lambda number=number: stage.disturb(scenario, fault(number), allowed))
        for number in range(1, operations + 1, every)
    ]


@share
def test_a_kill_loses_nothing(stage: Stage, attempt: Callable, share: int | None) -> None:
    cases = [case for one in scenarios(share) for case in by_operation(stage, one, killed_before, [-signal.SIGKILL])]
    attempt("SIGKILL before any file operation: repaired, all is as if undisturbed", cases, share and 3)


@share
def test_a_full_disk_is_said_and_loses_nothing(stage: Stage, attempt: Callable, share: int | None) -> None:
    def full(number: int) -> Fault:
        return refused(number, errno.ENOSPC, ever_after=True)

    cases = [case for one in scenarios(share) for case in by_operation(stage, one, full, [0, 2], every=2)]
    attempt("a disk that is full from an operation on: said, exit 2, repaired", cases, share)


@share
def test_a_read_only_disk_is_said_and_loses_nothing(stage: Stage, attempt: Callable, share: int | None) -> None:
    def read_only(number: int) -> Fault:
        return refused(number, errno.EROFS, ever_after=True)

    cases = [case for one in scenarios(share) for case in by_operation(stage, one, read_only, [0, 2], every=3)]
    attempt("a disk that becomes read-only: said, exit 2, repaired", cases, share)


@share
@pytest.mark.parametrize(
    "name", ["SIGTERM", "SIGINT", *(pytest.param(one, marks=pytest.mark.slow) for one in ("SIGHUP", "SIGUSR1"))]
)
def test_a_signal_finishes_the_step(stage: Stage, attempt: Callable, name: str, share: int | None) -> None:
    number = getattr(signal, name)
    before = {"SIGINT": 1}.get(name, -number)  # before training listens, the signal does what it does to any program
    cases = []
    for one in scenarios(share):
        if one.stoppable:
            allowed = [0, 130, before]
            cases += by_operation(stage, one, lambda n: signalled_before(n, number), allowed, every=4)
    attempt(f"{name} at any file operation: the step is finished and saved", cases, share)


@share
def test_limits_are_said(stage: Stage, attempt: Callable, share: int | None) -> None:
    sizes = [0, 10, 100, 1_000, 5_000, 20_000, 60_000, 100_000, 200_000]
    limits = {
        **{f"files of {size} bytes at most": lambda s=size: limited(resource.RLIMIT_FSIZE, s) for size in sizes},
        **{
            f"{more} more files open": lambda m=more: limited(resource.RLIMIT_NOFILE, open_descriptors() + 4 + m)
            for more in range(0, 8)
        },
    }
    cases = [
        (f"{one.name}, {what}", lambda one=one, make=make: stage.disturb(one, make(), [0, 1, 2]))
        for what, make in limits.items()
        for one in scenarios(share)
        if one.name != "train, scored" and not one.rare
    ]
    attempt("limits on file sizes and open files: repaired, all is as if undisturbed", cases, share)


@share
def test_a_small_disk_is_said_and_loses_nothing(stage: Stage, attempt: Callable, share: int | None) -> None:
    if not may_mount():
        pytest.skip("this user may not mount a file system")
    sizes = [4096 * pages for pages in (0, 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)]
    cases = [
        (f"{one.name}, {free} bytes free", lambda a=(one, free): stage.disturb(a[0], None, [0, 2], free=a[1]))
        for one in scenarios(share)
        if not one.rare
        for free in sizes
    ]
    attempt("a file system that is too small: said, exit 2, repaired", cases, share)


@share
def test_damaged_files_are_said(stage: Stage, attempt: Callable, share: int | None) -> None:
    def tried(reader: str, name: str, kind: str, round_: int) -> list[str]:
        folder = stage.copy("branches")
        damage(folder / name, kind, f"{name} {kind} {round_}")
        outcome = stage.run(READERS[reader], folder)
        broken = []
        if outcome.has_traceback:
            broken.append(f"a traceback: {outcome.text[-700:]}")
        if outcome.code not in (0, 1, 2):
            broken.append(f"exit code {outcome.code}: {outcome.text[-300:]}")
        named = Path(name).name in outcome.text
        if "records/spectra" in name and outcome.code == 0 and not named and shown(reader, folder) != whole(reader):
            broken.append(f"other numbers, and not a word of it: {outcome.text[-200:]}")
        shutil.rmtree(folder)
        return broken

    def shown(reader: str, folder: Path) -> object:
        """What the reader made of the record."""
        pictures = folder / "figures"
        return snapshot(pictures) if pictures.exists() else stage.run(READERS[reader], folder).text

    @functools.cache
    def whole(reader: str) -> object:
        folder = stage.copy("branches")
        stage.run(READERS[reader], folder)
        return shown(reader, folder)

    cases = [
        (f"{reader} with {name} {kind}, {round_}", lambda a=(reader, name, kind, round_): tried(*a))
        for reader in READERS
        for name in DAMAGED
        if reads(reader, name)
        for kind in DAMAGES
        for round_ in range(2)
    ]
    attempt("a damaged file: said in a sentence, rebuilt, skipped or refused", cases, share)


HOSTILE_NAMES = [
    "$\\frac{$", "a b", "-x", "%s", "{0}", "ü" * 100, "日本", "a'b\"c", "*", "#", "x" * 300, "tab\there", "<b>&amp;",
    "\\", "_a^b_", "[red]",
]  # fmt: skip


@share
def test_hostile_names(stage: Stage, attempt: Callable, share: int | None) -> None:
    def tried(name: str, made: Command) -> list[str]:
        folder = stage.copy("branches")
        program, arguments = made
        if len(name) < 200:
            shutil.copytree(folder / "run", folder / name)
            shutil.copytree(folder / "branch", folder / f"{name}-branch")
        outcome = stage.run((program, [part.replace("NAME", f"./{name}") for part in arguments]), folder)
        shutil.rmtree(folder)
        wanted = [0] if len(name) < 200 else [2]
        broken = [] if outcome.code in wanted else [f"exit code {outcome.code}: {outcome.text[-500:]}"]
        return broken + ([f"a traceback: {outcome.text[-500:]}"] if outcome.has_traceback else [])

    commands: list[Command] = [
        ("biggan-train", ["--out", "NAME-new", "--steps=1", *TINY]),
        ("biggan-train", ["--resume", "NAME", "--steps=7", "--quiet"]),
        ("biggan-sample", ["--ckpt", "NAME", "--out", "grid.png", "--standing-passes", "1"]),
        ("spectra", ["plot", "NAME", "--figure", "20", "--out", "figures"]),
        ("spectra", ["events", "NAME"]),
        ("biggan-intervene", ["--ckpt", "NAME", "--at", "4", "--control", "--steps=1", "--out", "NAME-new", "--quiet"]),
        ("biggan-intervene", ["compare", "NAME-branch", "control", "--out", "compared"]),
    ]
    cases = [
        (f"{command[0]} {command[1][0]} {name[:20]!r}", lambda a=(name, command): tried(*a))
        for name in HOSTILE_NAMES
        for command in commands
    ]
    attempt("hostile names of runs: they work, or are refused in a sentence", cases, share and 2)


@share
def test_runs_that_are_not_finite(stage: Stage, attempt: Callable, share: int | None) -> None:
    def tried(rates: list[str], command: Command) -> list[str]:
        folder = stage.copy("empty")
        trained = stage.run(("biggan-train", ["--out", "run", "--steps=6", *TINY, *rates]), folder)
        broken = [] if trained.code in (0, 1) and not trained.has_traceback else [trained.text[-500:]]
        outcome = stage.run(command, folder)
        if outcome.code not in (0, 1, 2) or outcome.has_traceback:
            broken.append(f"exit code {outcome.code}: {outcome.text[-700:]}")
        shutil.rmtree(folder)
        return broken

    diverging = {
        "G": ["--optim.G.lr=1e30"],
        "D": ["--optim.D.lr=1e30"],
        "both": ["--optim.G.lr=1e38", "--optim.D.lr=1e38"],
        "G, without normalization": ["--optim.G.lr=1e30", "--model.spectral_norm_G=false"],
        "both, without normalization": (
            ["--optim.G.lr=1e30", "--optim.D.lr=1e30", "--model.spectral_norm_G=false", "--model.spectral_norm_D=false"]
        ),
        "both, and stops": ["--optim.G.lr=1e38", "--optim.D.lr=1e38", "--train.on_non_finite=stop"],
    }
    branch = ("biggan-intervene", ["--ckpt", "run", "--freeze", "D", "--steps", "2", "--out", "b", "--quiet"])
    commands: dict[str, Command] = {
        **{name: command for name, command in READERS.items() if reads(name, "run/run.json") and name != "branch"},
        "branch": branch,
        "compare": ("biggan-intervene", ["compare", "run", "--out", "compared"]),
    }
    cases = [
        (f"{who}: {name}", lambda a=(rates, command): tried(*a))
        for who, rates in diverging.items()
        for name, command in commands.items()
    ]
    attempt("runs with NaN and Inf through every command: no traceback", cases, share)


@share
def test_two_processes_at_one_directory(stage: Stage, attempt: Callable, share: int | None) -> None:
    def tried(scenario: Scenario, delay: float) -> list[str]:
        wanted, _ = stage.undisturbed(scenario)
        folder = stage.copy(scenario.needs)
        codes, texts = stage.run_pair(scenario.command, folder, delay)
        broken = []
        if 0 not in codes or not set(codes) <= {0, 2}:
            broken.append(f"exit codes {codes}, expected 0 and 0 or 2: {texts}")
        if any("Traceback" in text for text in texts):
            broken.append(f"a traceback: {texts}")
        repaired = stage.run(scenario.repair(folder), folder)
        broken += [f"the repair: {repaired.text[-300:]}"] if repaired.code else []
        broken += differences(wanted, snapshot(folder))
        if not broken:
            shutil.rmtree(folder)
        return broken

    cases = [
        (f"{one.name}, {delay} s apart", lambda a=(one, delay): tried(*a))
        for one in scenarios(share)
        if not one.rare
        for delay in (0.0, 0.05, 0.3, 1.0)
    ]
    attempt("two processes at one directory: one does it, the other waits or is refused", cases, share)


@pytest.mark.parametrize("share", [pytest.param(None, id="all", marks=CAMPAIGN)])  # ranks take long to begin
def test_a_rank_dies(stage: Stage, attempt: Callable, share: int | None) -> None:
    again: Command = ("biggan-train", ["--out", "run", "--steps=4", *TINY, "--resume-or-start"])

    @functools.cache
    def undisturbed() -> dict[str, object]:
        folder = stage.copy("empty")
        assert stage.run_ranks(again, folder) == [0, 0]
        return snapshot(folder)

    def tried(rank: int, number: int | float) -> list[str]:
        folder = stage.copy("empty")
        died = killed_before(int(number)) if rank == 0 else killed_after(number)
        stage.run_ranks(again, folder, {rank: died})
        codes = stage.run_ranks(again, folder)
        broken = [f"the repair ended with {codes}"] if codes != [0, 0] else []
        broken += differences(undisturbed(), snapshot(folder))
        if not broken:
            shutil.rmtree(folder)
        return broken

    deaths = [(0, number) for number in range(1, 46, 4)] + [(1, seconds / 10) for seconds in range(1, 13)]
    cases = [(f"rank {rank} at {when}", lambda a=(rank, when): tried(*a)) for rank, when in deaths]
    attempt("one of two ranks is killed: repaired, all is as if undisturbed", cases, share)


@share
def test_fuzzed_inputs(stage: Stage, attempt: Callable, share: int | None) -> None:
    def tried(kind: str, seed: int) -> list[str]:
        folder = stage.copy("run")
        command = fuzzed(kind, random.Random(f"{kind} {seed}"), folder)
        outcome = stage.run(command, folder, seconds=40)
        shutil.rmtree(folder)
        broken = [] if outcome.code in (0, 2) else [f"exit code {outcome.code}: {outcome.text[-500:]}"]
        return broken + ([f"a traceback: {outcome.text[-700:]}"] if outcome.has_traceback else [])

    cases = [
        (f"{kind} {seed}", lambda a=(kind, seed): tried(*a))
        for kind, count in {"plan": 240, "configuration": 120, "options": 120, "changes": 120}.items()
        for seed in range(count)
    ]
    attempt("odd plans, configurations and options: they work, or are refused in a sentence", cases, share)
