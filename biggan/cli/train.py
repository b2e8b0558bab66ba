"""The commands: `biggan-train` and `biggan-sample`."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.errors import ReportedByOtherRank, UserError

if TYPE_CHECKING:
    import argparse

    from biggan.cli.options import CommandLine
    from biggan.config.tree import Config
    from biggan.run.session import Session
    from biggan.training.observer import Observer

EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130
FILES_NOT_WRITTEN = {".png", ".jpg", ".jpeg", ".npy", ".pt", ".zip", ".tar", ".gz", ".tgz", ".h5"}
EXIT_OF = {"finished": EXIT_DONE, "interrupted": EXIT_INTERRUPTED, "stopped": EXIT_FAILED}


def train_main(argv: list[str] | None = None) -> int:
    """`biggan-train`. Returns the exit code: 0 done, 2 bad input, 130 interrupted (saved), 1 anything else."""
    return guarded("biggan-train", _train, sys.argv[1:] if argv is None else argv)


def sample_main(argv: list[str] | None = None) -> int:
    """`biggan-sample`. Returns the exit code: 0 done, 2 bad input, 1 anything else."""
    argv = sys.argv[1:] if argv is None else argv
    return guarded("biggan-sample", _sample, argv, stopped="stopped; no grid was written.", kept="No grid was written.")


def guarded(
    program: str,
    command: Callable[[list[str]], int],
    argv: list[str],
    *,
    stopped: str = "stopped at once; nothing was saved beyond the last checkpoint.",
    stopped_code: int = EXIT_FAILED,
    kept: str = "Earlier checkpoints are whole.",
) -> int:
    """Run a command; what is the user's to mend becomes one paragraph and exit code 2.

    `stopped` and `stopped_code` are for an interrupt that the command did not take itself, `kept` says what is left
    where the system refuses to write.
    """
    try:
        return command(argv)
    except ReportedByOtherRank:
        return EXIT_BAD_INPUT
    except UserError as error:
        _complain(program, str(error))
        return EXIT_BAD_INPUT
    except OSError as error:
        if error.errno not in USERS_TO_MEND:
            raise
        _complain(program, f"the system refused: {error}. {kept} Make room or give another place.")
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        _complain(program, stopped)
        return stopped_code


# Full disks, quotas and limits; places where nothing may be written.
USERS_TO_MEND = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


def _complain(program: str, message: str) -> None:
    print(
        textwrap.fill(f"{program}: error: {message}", width=110, break_long_words=False, break_on_hyphens=False),
        file=sys.stderr,
    )


def _train(argv: list[str]) -> int:
    from biggan.distributed.launch import processes

    with processes():
        return _train_on_ranks(argv[1:] if argv[:1] == ["--"] else argv)  # torchrun hands its own `--` on


def _train_on_ranks(argv: list[str]) -> int:
    from biggan.cli.options import parse
    from biggan.distributed.launch import all_ranks_or_none, run_to_continue

    with all_ranks_or_none():
        line = parse(argv)
        for name in ("json", "memory", "processes"):
            if line.flags[name] is not None and line.flags[name] is not False and not line.flags["dry_run"]:
                raise UserError(f"--{name} goes with --dry-run. Add --dry-run, or leave --{name} away.")
        if line.flags["allow_change"] and not line.flags["resume"]:
            raise UserError("--allow-change goes with --resume RUN. Name the run, or leave --allow-change away.")
        config = line.config() if line.flags["resume"] is None else None
    if config is None:
        return _resume(line, Path(line.flags["resume"]))
    if line.flags["dry_run"]:
        return _dry_run(line, config)
    if begun := run_to_continue(config.out, line.preset):
        return _resume(line, begun)
    from biggan.run.session import open_new

    return _run(open_new(config, line.preset), quiet=line.flags["quiet"])


def _resume(line: CommandLine, path: Path) -> int:
    from biggan.distributed.launch import all_ranks_or_none
    from biggan.distributed.ranks import is_main
    from biggan.run.directory import RunDirectory
    from biggan.run.session import find_start, open_resumed

    start = find_start(path)
    with all_ranks_or_none():
        begun = RunDirectory(path).continued_by(start.step) if is_main() else None
        if begun:
            raise UserError(f"{path} is at step {start.step}, and more is to change in it. Continue it with: {begun}")
        config = line.config(start.config)
    if line.flags["dry_run"]:
        return _dry_run(line, config)
    return _run(open_resumed(config, path, start, allow_change=line.flags["allow_change"]), quiet=line.flags["quiet"])


def _dry_run(line: CommandLine, config: Config) -> int:
    from biggan.config.tree import to_dict
    from biggan.distributed.ranks import is_main, world_size
    from biggan.run.session import check_names, notes_on
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
        print("less memory: --train.accumulate N cuts an update into N micro-batches; --train.recompute true")
    for note in notes_on(config):
        print(note)
    return EXIT_DONE


def _fitting(line: CommandLine, config: Config, processes: int) -> dict[str, Any]:
    """What `--memory` asks for: `fits`, with the largest micro-batch, its `accumulate` and memory, and a sentence."""
    from biggan.training.estimate import SPARE, largest_micro_batch

    if line.flags["memory"] is None:
        return {}
    card = _bytes(line.flags["memory"])
    found = largest_micro_batch(config, card, processes)
    where = f"cards of {_size(card)} ({SPARE:.0%} left free)"
    if found is None:
        text = (
            f"no micro-batch fits {where}: take more processes or a smaller batch (D's fake images are made in one "
            f"forward), or --train.recompute true"
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


def train_session(session: Session, *, quiet: bool, until: int | None = None, further: Sequence[Observer] = ()) -> str:
    """Train a session with everything that its configuration attaches, and `further` observers; on rank 0 alone.

    Returns what `Trainer.train` does.
    """
    from biggan.distributed.ranks import is_main, world_size
    from biggan.training.trainer import Trainer

    config, run = session.config, session.run
    if not is_main():
        return Trainer(config, session.state, session.source, run, []).train(until)
    if not quiet:
        for note in session.notes:
            print(note)
        threads = "1 thread" if config.threads == 1 else f"{config.threads} threads"
        ranks = "" if world_size() == 1 else f"{world_size()} processes, each "
        print(f"training in {run.path} on {ranks}{config.device}, {threads}, up to step {config.steps}", flush=True)
    observers = _observers(session, further, quiet=quiet)
    return Trainer(config, session.state, session.source, run, observers).train(until)


def _observers(session: Session, further: Sequence[Observer], *, quiet: bool) -> list[Any]:
    from biggan.observers.discriminator_view import DiscriminatorView
    from biggan.observers.evaluation import Evaluation
    from biggan.observers.progress import Progress
    from biggan.run.checkpoint import saved_steps
    from biggan.run.retention import CheckpointStore
    from biggan.training.observer import SampleGrids, TensorBoard
    from spectra.monitor.monitor import Monitor

    config, run = session.config, session.run
    networks = session.state.networks() if config.monitor == "spectra" else {}
    panels = run.tensorboard / "spectra" if config.tensorboard.every else None
    settings = dataclasses.asdict(config.spectra) | {"tensorboard": panels}
    settings["saved_steps"] = lambda: saved_steps(run.path)
    # The monitor has an observer's methods, and knows nothing of this package. What is recorded at a step comes before
    # its checkpoint, so that a run resumed there has it.
    monitor = Monitor(networks, run.path, start_step=session.state.step, **settings)
    observers: list[Any] = [
        Evaluation((lambda text: None) if quiet else print),  # before those who act upon its events
        monitor,
        DiscriminatorView(monitor.log),
        CheckpointStore(),
        SampleGrids(),
    ]
    if config.tensorboard.every:
        observers.append(TensorBoard())
    observers += further
    if not quiet:
        observers.append(Progress())
    return observers


def _run(session: Session, *, quiet: bool) -> int:
    from biggan.distributed.ranks import is_main

    run = session.run
    status = train_session(session, quiet=quiet)
    if not is_main():
        return EXIT_OF[status]
    if status == "interrupted":
        print(f"interrupted; step {session.state.step} is saved. To go on:\n  biggan-train --resume {run.path}")
    elif status == "stopped":
        print(
            f"stopped on non-finite numbers at step {session.state.step}, which is saved; see {run.path}/events.jsonl"
        )
    elif not quiet:
        _summary(session)
    return EXIT_OF[status]


def _summary(session: Session) -> None:
    run, step = session.run, session.state.step
    checkpoint = run.checkpoints / f"step-{step:08d}.safetensors"
    places = {
        "samples": run.samples / f"step-{step:08d}.png",
        "checkpoint": checkpoint,
        "best": run.checkpoints / "best.safetensors",
        "record": run.path / "records",
        "events": run.path / "events.jsonl",
    }
    print(f"finished at step {step}.")
    for name, path in places.items():
        if path.exists():
            print(f"  {name:<12}{path}")
    config = session.config
    truncation = " --truncation 0.5" if config.latents.distribution == "normal" else ""  # others cannot be truncated
    print("next:")
    print(f"  biggan-sample --ckpt {checkpoint}{truncation}")
    print(f"  biggan-eval --ckpt {checkpoint}")
    print(f"  spectra plot {run.path}" if config.monitor == "spectra" else f"  spectra events {run.path}")


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _sample(argv: list[str]) -> int:
    arguments = _sample_parser().parse_args(argv)
    from spectra.linalg.tf32 import tf32

    if arguments.film_strip:
        if arguments.num is not None:
            raise UserError("--num does not go with --film-strip. Leave one of them away.")
        with tf32(False):
            return _film_strip(arguments)
    if arguments.around is not None:
        raise UserError("--around goes with --film-strip RUN. Give the run, or leave --around away.")
    if not arguments.ckpt:
        raise UserError("nothing to draw from. Give --ckpt FILE, or --film-strip RUN.")
    with tf32(False):
        return _sample_many(arguments) if arguments.num is not None else _sample_grid(arguments)


def _sample_grid(arguments: argparse.Namespace) -> int:
    from biggan.evaluation.pictures.grids import save_checkpoint_grid

    print(f"standing statistics: {arguments.standing_passes} forward passes ...", file=sys.stderr, flush=True)
    path = save_checkpoint_grid(
        Path(arguments.ckpt),
        Path(arguments.out) if arguments.out else None,
        per_class=arguments.per_class,
        classes=arguments.classes,
        truncation=arguments.truncation,
        seed=arguments.seed,
        raw=arguments.raw,
        passes=arguments.standing_passes,
    )
    print(path)
    return EXIT_DONE


def _sample_many(arguments: argparse.Namespace) -> int:
    if arguments.out is None:
        raise UserError("--num needs a place: give --out samples.npz, or --out with a folder for PNG files.")
    if Path(arguments.out).suffix in FILES_NOT_WRITTEN and not Path(arguments.out).is_dir():
        raise UserError(
            f"--out is {arguments.out}: with --num, expected a name that ends in .npz, or a folder for PNG files."
        )
    if arguments.classes is not None or arguments.per_class != 8:
        raise UserError("--num draws all classes in turn; leave --classes and --per-class away.")
    for name, value in (("--num", arguments.num), ("--standing-passes", arguments.standing_passes)):
        if value < 1:
            raise UserError(f"{name} is {value}, expected at least 1.")
    from biggan.evaluation.export import ExportSpec, export_samples
    from biggan.evaluation.pictures.grids import load_generator
    from biggan.evaluation.shares import share_from_environment
    from biggan.run.checkpoint import newest_checkpoint, read_checkpoint
    from biggan.run.directory import class_names_of
    from biggan.run.session import resolve_device

    given = Path(arguments.ckpt)
    checkpoint = newest_checkpoint(given)[0] if given.is_dir() else read_checkpoint(given)
    order = ExportSpec(
        checkpoint=checkpoint.digest,
        step=checkpoint.step,
        weights="raw" if arguments.raw else "ema",
        num=arguments.num,
        seed=arguments.seed,
        truncation=arguments.truncation,
        standing_passes=arguments.standing_passes,
        class_names=class_names_of(checkpoint.path, checkpoint.config.model.classes),
    )
    share, out = share_from_environment(), Path(arguments.out)
    G = load_generator(checkpoint, raw=arguments.raw).to(resolve_device("auto"))
    made = 0

    def advance(images: int) -> None:
        nonlocal made
        made += images
        if made // 4096 != (made - images) // 4096:
            print(f"{made:,} images made by this process", file=sys.stderr, flush=True)

    whole = export_samples(checkpoint, G, order, out, share, advance=advance)
    print(out if whole else f"process {share.rank} of {share.ranks} is done; others are still at work")
    return EXIT_DONE


def _film_strip(arguments: argparse.Namespace) -> int:
    unused = {"--ckpt": arguments.ckpt, "--truncation": arguments.truncation, "--raw": arguments.raw}
    if given := [name for name, value in unused.items() if value]:
        raise UserError(f"{given[0]} does not go with --film-strip, which shows a run's checkpoints. Leave it away.")
    from biggan.evaluation.pictures.film_strip import draw_film_strip

    path = draw_film_strip(
        Path(arguments.film_strip),
        Path(arguments.out) if arguments.out else None,
        around=arguments.around,
        frames=arguments.frames,
        classes=arguments.classes,
        seed=arguments.seed,
        passes=arguments.standing_passes,
        report=lambda text: print(text, file=sys.stderr, flush=True),
    )
    print(path)
    return EXIT_DONE


def _sample_parser() -> argparse.ArgumentParser:
    from biggan.cli.app import Parser

    parser = Parser(
        prog="biggan-sample",
        description="Draw a labelled grid, classes by samples: averaged weights under standing statistics.",
    )
    add = parser.add_argument
    add(
        "--ckpt",
        metavar="FILE",
        help="RUN/checkpoints/step-*.safetensors, or a run directory (its newest)",
    )
    add(
        "--out", metavar="PATH", help="the picture to write (default: samples-STEP-....png here); with --num, see there"
    )
    add(
        "--num",
        type=int,
        metavar="N",
        help="instead of a grid, N images, classes in turn, into --out: FILE.npz, or a folder of PNG files. Goes on "
        "where it was killed; under torchrun every process makes its share",
    )
    add(
        "--classes",
        type=int,
        nargs="+",
        metavar="C",
        help="class numbers (run.json lists their names, class_names, in this order); default: the first 10",
    )
    add("--per-class", type=int, default=8, metavar="N", help="images a class (default 8)")
    add("--truncation", type=float, metavar="T", help="truncate z at T (Section 3.1); default: z as in training")
    add("--seed", type=int, default=0, help="seed of the latents (default 0)")
    add("--raw", action="store_true", help="use the generator's own weights instead of their average")
    add("--standing-passes", type=int, default=100, metavar="N", help="forwards for standing statistics (default 100)")
    strip = parser.add_argument_group(
        "film strip", "The same latents through the checkpoints around an event."
    ).add_argument
    strip("--film-strip", metavar="RUN", help="draw one of this run; takes --out, --classes, --seed, --standing-passes")
    strip(
        "--around",
        type=int,
        metavar="STEP",
        help="its middle; default: the onset of the collapse, the first alarm or spike, else the last step",
    )
    strip("--frames", type=int, default=9, metavar="N", help="how many checkpoints (default 9)")
    return parser
