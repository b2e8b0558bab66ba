"""Runs a plan's jobs: local processes with one core each, or jobs of a cluster through submitit; one display for all.

To continue a plan, launch it again: finished jobs are not repeated, interrupted ones resume where they stopped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from biggan.cli.app import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED
from biggan.errors import UserError
from biggan.run.files import LOCK, Lock
from biggan.training.signals import StopSignals
from interventions.study.worker import has_ended, note
from spectra.cli.output import unbreakable_output

if TYPE_CHECKING:
    from interventions.study.expand import Job, Resolved
    from interventions.study.permit import Permit

ATTEMPTS = 2
POLL_SECONDS = 0.2
GRACE_SECONDS = 120.0
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""For child processes: Python does not look for modules in the folder that it is started in, which may be a run."""


class Handle(Protocol):
    """A running job."""

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""

    def stop(self) -> None:
        """Ask it to finish its step and save."""


Start = Callable[[Path, str], Handle]


@dataclass
class Outcome:
    """How a launch ended."""

    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Key -> the last lines of the job's output."""
    retried: list[str] = field(default_factory=list)
    interrupted: bool = False


class Process:
    """A job as a child process, with its output in FOLDER/logs/."""

    def __init__(self, folder: Path, key: str, threads: int, gpu: str | None = None, words: Sequence[str] = ()) -> None:
        """`words` are further options of the worker."""
        log = log_of(folder, key)
        log.parent.mkdir(exist_ok=True)
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(paths)}
        environment |= SAFE_PATH
        environment |= {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        command = [sys.executable, "-m", "interventions.study.worker", str(folder), key, str(os.getpid()), *words]
        with open(log, "a", encoding="utf-8") as said:
            # A separate process group: a Ctrl-C reaches only the launcher, which passes it on.
            self.process = subprocess.Popen(command, stdout=said, stderr=said, env=environment, start_new_session=True)

    def poll(self) -> int | None:
        return self.process.poll()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)


def local(threads: int = 1, gpus: Sequence[str] = (), permit: Permit | None = None) -> Start:
    """Jobs as child processes of `threads` threads each; with `gpus`, each on the GPU that has fewest of them.
    `permit` is handed to them on their command lines, also when one is restarted."""
    running: list[tuple[str, Process]] = []
    words = [] if permit is None else permit.words()

    def start(folder: Path, key: str) -> Process:
        running[:] = [one for one in running if one[1].poll() is None]
        used = [gpu for gpu, _ in running]
        gpu = min(gpus, key=used.count, default=None)
        process = Process(folder, key, threads, gpu, words)
        if gpu is not None:
            running.append((gpu, process))
        return process

    return start


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(number) for number in range(count)]


class Submitted:
    """A job in a cluster's queue."""

    def __init__(self, executor: Any, folder: Path, key: str, permit: Permit | None = None) -> None:
        from interventions.study.worker import run_job

        self.folder, self.key = folder, key
        self.job = executor.submit(run_job, str(folder), key, permit)

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        error = self.job.exception()
        if error is None:
            return EXIT_INTERRUPTED if self.job.result() == "interrupted" else EXIT_DONE
        with open(log_of(self.folder, self.key), "a", encoding="utf-8") as words:
            words.write(f"{error}\n")
        return 1

    def stop(self) -> None:
        self.job.cancel(check=False)


def submitit(folder: Path, cluster: str | None, parameters: dict[str, Any], permit: Permit | None = None) -> Start:
    """Jobs through submitit: SLURM, or `cluster="local"` for processes of its own. Raises `UserError` without it.

    submitit keeps what it sends and receives as pickles. They lie in a folder that this launch makes, for this user
    alone: one found in the plan's directory might be somebody else's.
    """
    try:
        from submitit import AutoExecutor
    except ImportError as error:
        raise UserError("submitit is not installed. Install it: pip install submitit.") from error
    (folder / "logs").mkdir(exist_ok=True)
    executor = AutoExecutor(folder=tempfile.mkdtemp(prefix="submitit-", dir=folder / "logs"), cluster=cluster)
    executor.update_parameters(**{"timeout_min": 24 * 60, "cpus_per_task": 1, "name": "biggan-intervene", **parameters})
    return lambda folder, key: Submitted(executor, folder, key, permit)


def make_start(
    slurm: Sequence[str] | None, folder: Path, threads: int, permit: Permit | None = None, *, on_gpus: bool = False
) -> Start:
    """Child processes (`on_gpus`: each on a GPU of its own), or where `slurm` gives its KEY=VALUE parameters, jobs
    through submitit. `permit` is handed to each of them. Raises `UserError` for a parameter that has no value."""
    if not slurm:
        return local(threads, gpus() if on_gpus else [], permit)
    parameters: dict[str, Any] = {}
    for text in slurm:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--slurm is '{text}', expected KEY=VALUE, for example partition=gpu.")
        parameters[key] = int(value) if value.isdigit() else value
    cluster = parameters.pop("cluster", None)
    return submitit(folder, cluster, {"cpus_per_task": threads, **parameters}, permit)


def threads_of(resolved: Resolved) -> int:
    """Threads of one run: the base runs' own number, because it affects the bits. Checkpoints that cannot be read do
    not count here: `launch` refuses them."""
    from biggan.config import from_dict
    from biggan.run.checkpoint import peek

    found = [1]
    for base in resolved.bases:
        with suppress(ValueError, RecursionError, UserError):
            found.append(from_dict(json.loads(peek(Path(base.checkpoint)).get("config", ""))).threads)
    return max(found)


def log_of(folder: Path, key: str) -> Path:
    """The file of a job's output."""
    return folder / "logs" / f"{key.replace('/', '--')}.log"


def launch(resolved: Resolved, folder: Path, start: Start, jobs: int, *, quiet: bool = False) -> Outcome:
    """Run every job of the plan in `folder` that has not finished, `jobs` at a time.

    A crashed job is restarted once, from its newest checkpoint; after a second crash it is reported, and the others
    continue. Ctrl-C and the other stop signals let every job finish its step and save. Raises `UserError` where the
    plan is being run by another process, or a parent is missing.
    """
    with lock_plan(folder):
        return Launch(resolved, folder, start, jobs, quiet).run()


class Launch:
    """One launch of a plan. A subclass may choose which job is next, and add jobs while it runs."""

    def __init__(self, resolved: Resolved, folder: Path, start: Start, jobs: int, quiet: bool) -> None:
        self.resolved, self.folder, self.start, self.jobs = resolved, folder, start, jobs
        self.outcome = Outcome()
        self.waiting: list[Job] = []
        for job in resolved.jobs:
            if has_ended(folder / job.key):
                self.outcome.finished.append(job.key)
            else:
                self.waiting.append(job)
        self.running: dict[str, Handle] = {}
        self.attempts: dict[str, int] = {}
        self.signals = StopSignals()
        self.display = Display(resolved, folder, self.outcome, quiet)

    def run(self) -> Outcome:
        self._check_parents()
        command = [Path(sys.argv[0]).name, *sys.argv[1:]]
        counts = {"waiting": len(self.waiting), "finished": len(self.outcome.finished), "jobs": self.jobs}
        note(self.folder, "launched", command=command, **counts)
        with self.signals, unbreakable_output(everything=True):
            try:
                with self.display:
                    self._loop()
            finally:
                self._stop_all()
        self.outcome.interrupted = self.signals.asked
        self.signals.pass_on()
        return self.outcome

    def _check_parents(self) -> None:
        from interventions.study.worker import load_parent

        for base in self.resolved.bases:
            if any(job.base == base.name for job in self.waiting):
                load_parent(base)

    def _next(self) -> Job | None:
        """Take the next job from those that wait; None: none can start now."""
        return self.waiting.pop(0) if self.waiting else None

    def _after(self, job: Job) -> None:
        """Called when a job has finished, or failed for good."""

    def _loop(self) -> None:
        while (self.waiting or self.running) and not self.signals.asked:
            while len(self.running) < self.jobs and (job := self._next()) is not None:
                self.attempts[job.key] = self.attempts.get(job.key, 0) + 1
                self.running[job.key] = self.start(self.folder, job.key)
                note(self.folder, "started", key=job.key, attempt=self.attempts[job.key])
            time.sleep(POLL_SECONDS)
            for key, handle in list(self.running.items()):
                if (code := handle.poll()) is not None:
                    del self.running[key]
                    self._ended(key, code)
            self.display.show(self.running)

    def _ended(self, key: str, code: int) -> None:
        job = self.resolved.job(key)
        if code == EXIT_DONE and has_ended(self.folder / key):
            self.outcome.finished.append(key)
            note(self.folder, "finished", key=key)
            self._after(job)
            return
        words = _last_words(self.folder, key)
        note(self.folder, "crashed", key=key, code=code, attempt=self.attempts[key], words=words)
        if self.attempts[key] < ATTEMPTS and code != EXIT_BAD_INPUT:
            self.outcome.retried.append(key)
            self.waiting.insert(0, job)
            self.display.say(f"{key} ended with code {code}; it is restarted")
        else:
            self.outcome.failed[key] = words
            self.display.say(f"{key} failed with code {code}: {words.splitlines()[-1] if words else 'no output'}")
            self._after(job)

    def _stop_all(self) -> None:
        for handle in self.running.values():
            handle.stop()
        deadline = time.monotonic() + GRACE_SECONDS
        while any(handle.poll() is None for handle in self.running.values()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


class Display:
    """All jobs at once: a live table on a terminal, a plain line now and then elsewhere."""

    PLAIN_SECONDS = 30.0

    def __init__(self, resolved: Resolved, folder: Path, outcome: Outcome, quiet: bool) -> None:
        self.folder, self.outcome, self.quiet = folder, outcome, quiet
        self.know(resolved)
        self.live: Any = None
        self.tasks: dict[str, Any] = {}
        self.last = 0.0

    def know(self, resolved: Resolved, further: Iterable[Job] = ()) -> None:
        """Show the jobs of `resolved` from now on, and `further` ones."""
        self.resolved = resolved
        self.ends = {job.key: self._span(job) for job in [*resolved.jobs, *further]}

    def _span(self, job: Job) -> tuple[int, int]:
        begin = 0 if job.kind == "scratch" else self.resolved.base_of(job).step
        return begin, begin + job.steps

    def __enter__(self) -> Display:
        if not self.quiet and sys.stdout.isatty():
            from rich import progress

            self.live = progress.Progress(
                progress.TextColumn("{task.description:<36}"),
                progress.BarColumn(bar_width=24),
                progress.TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                progress.TimeRemainingColumn(),
            )
            self.live.start()
            self.total = self.live.add_task("all runs", total=len(self.ends))
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.show({})
            self.live.stop()

    def show(self, running: dict[str, Handle]) -> None:
        """Bring the display up to date."""
        if self.quiet:
            return
        done = len(self.outcome.finished) + len(self.outcome.failed)
        if self.live is None:
            if time.monotonic() - self.last > self.PLAIN_SECONDS:
                self.last = time.monotonic()
                at = ", ".join(f"{key} at {self.step(key)}/{self.ends[key][1]}" for key in running)
                print(f"{done}/{len(self.ends)} runs done; {at or 'none running'}", flush=True)
            return
        self.live.update(self.total, completed=done, total=len(self.ends))
        for key in [key for key in self.tasks if key not in running]:
            self.live.remove_task(self.tasks.pop(key))
        for key in running:
            begin, end = self.ends[key]
            if key not in self.tasks:
                self.tasks[key] = self.live.add_task(key, total=end - begin)
            self.live.update(self.tasks[key], completed=self.step(key) - begin)

    def step(self, key: str) -> int:
        """The last step that a job has reported."""
        try:
            return int(json.loads((self.folder / "progress" / f"{key.replace('/', '--')}.json").read_text())["step"])
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return self.ends[key][0]

    def say(self, line: str) -> None:
        """Print a separate line."""
        if self.live is not None:
            self.live.console.print(line)
        elif not self.quiet:
            print(line, flush=True)


def _last_words(folder: Path, key: str) -> str:
    path = log_of(folder, key)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return "\n".join(line for line in lines[-5:] if line.strip())


def lock_plan(folder: Path) -> Lock:
    """Lock a plan's directory. Raises `UserError` where another process runs the plan."""
    try:
        return Lock(folder / LOCK)
    except BlockingIOError as error:
        raise UserError(f"another process is running the plan in {folder}. Wait until it has ended.") from error
