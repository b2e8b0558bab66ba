"""The command `biggan-train`: a new run, a resumed one, or a dry run."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.cli.app import EXIT_DONE, EXIT_OF, guarded
from biggan.errors import UserError

if TYPE_CHECKING:
    from biggan.cli.options import CommandLine
    from biggan.config import Config
    from biggan.observers.notify import Notify
    from biggan.run.session import Session


def train_main(argv: list[str] | None = None) -> int:
    """`biggan-train`. Returns the exit code: 0 done, 2 bad input, 130 interrupted (saved), 1 anything else."""
    return guarded("biggan-train", _train, sys.argv[1:] if argv is None else argv)


def _train(argv: list[str]) -> int:
    from biggan.distributed.launch import processes

    with processes():
        return _train_on_ranks(argv[1:] if argv[:1] == ["--"] else argv)  # torchrun hands its own `--` on


def _train_on_ranks(argv: list[str]) -> int:
    from biggan.cli.options import parse
    from biggan.distributed.consensus import all_ranks_or_none
    from biggan.observers.notify import Notify

    with all_ranks_or_none():
        line = parse(argv)
        for name in ("json", "memory", "processes"):
            if line.flags[name] is not None and line.flags[name] is not False and not line.flags["dry_run"]:
                raise UserError(f"--{name} needs --dry-run. Add --dry-run, or omit --{name}.")
        if line.flags["resume_or_start"] and line.flags["resume"]:
            raise UserError(
                "--resume-or-start and --resume are both given. --resume-or-start takes --out DIR; omit one."
            )
        if line.flags["allow_change"] and not (line.flags["resume"] or line.flags["resume_or_start"]):
            raise UserError("--allow-change needs --resume RUN. Name the run, or omit --allow-change.")
        notify = None if line.flags["notify"] is None else Notify(line.flags["notify"])
        if notify and line.flags["dry_run"]:
            raise UserError("--notify cannot be used with --dry-run, which raises no alarm. Omit one.")
        config = line.config() if line.flags["resume"] is None else None
        if line.flags["resume_or_start"] and config is not None and config.out is None:
            raise UserError("--resume-or-start needs --out DIR, the run's directory: it is resumed, or begun there.")
    from biggan.permissions import permitted

    with permitted([line.features], trust_cache=line.flags["trust_cache"]):
        return _new_or_resumed(line, config, notify)


def _new_or_resumed(line: CommandLine, config: Config | None, notify: Notify | None) -> int:
    from biggan.distributed.launch import restarts
    from biggan.run.session import is_run_in, open_new, run_to_continue

    if config is None:
        begun = Path(line.flags["resume"])
    elif line.flags["resume_or_start"] and is_run_in(Path(str(config.out))):
        begun = Path(str(config.out))
    elif line.flags["dry_run"]:
        return _dry_run(line, _with_data(line, config))
    elif (found := run_to_continue(config.out, line.preset)) is None:
        session = open_new(config, line.preset, left_to_data=line.left_to_data())
        return _run(session, notify, quiet=line.flags["quiet"])
    else:
        begun = found
    if restarts() and _had_stopped(begun):
        return EXIT_OF["stopped"]
    return _resume(line, begun, notify)


def _had_stopped(path: Path) -> bool:
    """Whether the run stopped as configured, which torchrun takes for a crash and restarts; it is said once more."""
    from biggan.distributed.collectives import from_main
    from biggan.distributed.ranks import is_main
    from biggan.run.directory import RunDirectory
    from biggan.run.ending import has_stopped, why_stopped

    stopped: bool = from_main(is_main() and has_stopped(RunDirectory(path)))
    if stopped and is_main():
        print(why_stopped(RunDirectory(path)))
    return stopped


def _resume(line: CommandLine, path: Path, notify: Notify | None) -> int:
    from biggan.distributed.consensus import all_ranks_or_none
    from biggan.distributed.ranks import is_main
    from biggan.run.directory import RunDirectory
    from biggan.run.finishing import finish_trained
    from biggan.run.session import find_start, open_resumed

    start = find_start(path)
    with all_ranks_or_none():
        begun = RunDirectory(path).continued_by(start.step) if is_main() else None
        if begun:
            raise UserError(f"{path} is at step {start.step}, and later changes are still to be made. Use: {begun}")
        # The whole line stands for the run where it may begin it: what it leaves out is not taken from the run.
        config = line.config(None if line.flags["resume_or_start"] else start.config)
        if line.flags["resume_or_start"]:
            config = _as_begun(config, start.config, line.left_to_data())
    if line.flags["dry_run"]:
        return _dry_run(line, config)
    allow_change, quiet = line.flags["allow_change"], line.flags["quiet"]
    if (said := finish_trained(config, path, start, allow_change=allow_change)) is not None:
        if is_main() and not quiet:
            print(said)
        return EXIT_DONE
    return _run(open_resumed(config, path, start, allow_change=allow_change), notify, quiet=quiet)


def _as_begun(config: Config, begun: Config, names: frozenset[str]) -> Config:
    """`config` with these fields as the run has them, whose data is compared by itself."""
    from biggan.config import flatten, from_dict, to_dict, unflatten

    own = flatten(to_dict(begun))
    return from_dict(unflatten(flatten(to_dict(config)) | {name: own[name] for name in names}))


def _with_data(line: CommandLine, config: Config) -> Config:
    """`config` with the classes of the data, where the line leaves them to it and the data is here."""
    from biggan.data.sources.opening import open_source
    from biggan.run.session import said_of_data, with_classes

    names, path = line.left_to_data(), config.data.path
    if "model.classes" not in names or path is None:
        return config
    if not Path(path).exists():
        print(f"note: {path} is not here, so model.classes is the preset's {config.model.classes}.", file=sys.stderr)
        return config
    config = with_classes(config, len(open_source(config, any_classes=True).classes))
    print(f"note: {said_of_data(config, names)}", file=sys.stderr)
    return config


def _dry_run(line: CommandLine, config: Config) -> int:
    from biggan.choices import check_names
    from biggan.config import to_dict
    from biggan.distributed.ranks import is_main, world_size
    from biggan.run.session import config_notes
    from biggan.training.estimate import estimate

    check_names(config)
    if not is_main():
        return EXIT_DONE
    processes = world_size() if line.flags["processes"] is None else line.flags["processes"]
    if processes < 1:
        raise UserError(f"--processes is {processes}, expected at least 1.")
    found = estimate(config, processes) | _fitting(line, config, processes)
    if line.flags["json"]:
        print(json.dumps(found | {"preset": line.preset, "config": to_dict(config)}))
        return EXIT_DONE
    import yaml

    print(yaml.safe_dump(to_dict(config), sort_keys=False), end="")
    counts, memory = found["parameters"], found["memory"]
    print(f"\nparameters: G {counts['G']:,}  D {counts['D']:,}")
    parts = ", ".join(f"{name.replace('_', ' ')} {_size(amount)}" for name, amount in memory.items())
    which = "one process" if processes == 1 else f"each of {processes} processes"
    print(f"memory, {which}: {_size(found['memory_bytes'])} ({parts})")
    if "fits" in found:
        print(found["fits"]["text"])
    elif config.train.accumulate == 1 and config.train.batch > processes:
        print("to use less memory: --train.accumulate N (an update in N micro-batches), or --train.recompute true")
    for note in config_notes(config):
        print(note)
    return EXIT_DONE


def _fitting(line: CommandLine, config: Config, processes: int) -> dict[str, Any]:
    """What `--memory` asks for: `fits`, with the largest micro-batch, its `accumulate` and memory, and a sentence."""
    from biggan.training.estimate import SPARE, largest_micro_batch

    if line.flags["memory"] is None:
        return {}
    card = _bytes(line.flags["memory"])
    found = largest_micro_batch(config, card, processes)
    where = f"a GPU of {_size(card)} ({SPARE:.0%} left free)"
    if found is None:
        text = (
            f"no micro-batch fits {where}: use more processes, a smaller batch (D's fake images are made in one "
            "forward "
            f"pass), or --train.recompute true"
        )
        return {"fits": {"micro_batch": None, "text": text}}
    micro, accumulate, needed = found
    text = (
        f"largest micro-batch that fits {where}: {micro} images over all processes, --train.accumulate {accumulate}, "
        f"{_size(needed)}"
    )
    return {"fits": {"micro_batch": micro, "accumulate": accumulate, "memory_bytes": needed, "text": text}}


UNITS = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def _bytes(text: str) -> int:
    """`80GiB`, `80 GB` or a number of bytes. Raises `UserError` for anything else."""
    parts = re.fullmatch(r"\s*(\d+\.?\d*)\s*([kmgt]i?b)?\s*", text.lower())
    if parts is None or float(parts[1]) == 0:
        raise UserError(f"--memory is '{text}', expected a size such as 80GiB, 24GB or a number of bytes.")
    return int(float(parts[1]) * UNITS.get(parts[2], 1))


def _run(session: Session, notify: Notify | None, *, quiet: bool) -> int:
    from biggan.distributed.ranks import is_main
    from biggan.run.assemble import train_session
    from biggan.run.outline import say_the_end

    began = time.monotonic()
    status = train_session(session, quiet=quiet, further=[notify] if notify else [])
    if is_main():
        say_the_end(session, status, time.monotonic() - began, quiet=quiet)
    return EXIT_OF[status]


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
