"""`biggan-data prepare`, `biggan-data check` and `biggan-data inspect`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Mapping

from biggan.cli.app import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, Parser, add_version, guarded, pairs_of
from biggan.errors import UserError

_KEPT = "What is packed is kept, and the same command continues from there."
STOPPED = f"stopped. {_KEPT}"


def data_main(argv: list[str] | None = None) -> int:
    """`biggan-data`. Returns the exit code: 0 done, 2 bad input, 130 interrupted (work kept), 1 anything else."""
    argv = sys.argv[1:] if argv is None else argv
    return guarded("biggan-data", _data, argv, stopped=STOPPED, stopped_code=EXIT_INTERRUPTED, kept=_KEPT)


def _data(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    return {"prepare": _prepare, "check": _check, "inspect": _inspect}[arguments.command](arguments)


def _prepare(arguments: argparse.Namespace) -> int:
    for name in ("resolution", "workers", "top_classes", "max_pixels"):
        _check_range(name, getattr(arguments, name), 1, None)
    _check_range("val_fraction", arguments.val_fraction, 0.001, 0.5)
    from pathlib import Path

    from biggan.data.prepare.job import contents, finished, plan, prepare
    from biggan.data.prepare.progress import PrepareProgress

    out = Path(arguments.out)
    job = plan(
        arguments.source,
        out,
        arguments.resolution,
        top_classes=arguments.top_classes,
        val_fraction=arguments.val_fraction,
        columns=_columns(arguments),
        max_pixels=arguments.max_pixels,
    )
    for text in job.notes:
        print(f"note: {text}", file=sys.stderr)
    if (manifest := finished(job)) is not None:
        print(f"{out} is already prepared: {contents(manifest)}.")
        if manifest["skipped"]:
            print(f"{len(manifest['skipped'])} broken images were skipped then. To try them again: another --out.")
        return EXIT_DONE
    began = time.monotonic()
    progress = PrepareProgress()
    manifest = prepare(job, processes=arguments.workers, skip_broken=arguments.skip_broken, reporter=progress)
    seconds = time.monotonic() - began
    print(f"{out}: {contents(manifest)}.")
    print(f"packed {progress.packed:,} images in {seconds:.1f} s ({progress.packed / seconds:,.0f} images/s).")
    if manifest["skipped"]:
        print(f"skipped {len(manifest['skipped'])} broken images; {out / 'manifest.json'} lists them.")
    print("next:")
    print(f"  biggan-train --data.path {shlex.quote(str(out))} --model.resolution {arguments.resolution}")
    return EXIT_DONE


def _columns(arguments: argparse.Namespace) -> dict[str, str]:
    if arguments.columns is None:
        return {}
    from biggan.config import DataConfig

    return DataConfig(columns=pairs_of(arguments.columns, "--columns")).columns


def _check(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from biggan.data.prepare.job import contents
    from biggan.data.sources.packed import check, open_packed, read_manifest

    path = Path(arguments.path)
    manifest = read_manifest(path)
    open_packed(path, manifest["resolution"])
    if wrong := check(path):
        print("\n".join(wrong), file=sys.stderr)
        return EXIT_FAILED
    print(f"{path} is complete and undamaged: {contents(manifest)}.")
    return EXIT_DONE


def _inspect(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from biggan.data.inspection import inspect_data
    from biggan.data.notes import classes_in_words

    _check_range("max_pixels", arguments.max_pixels, 1, None)
    found = inspect_data(
        Path(arguments.path), every=arguments.all, columns=_columns(arguments), max_pixels=arguments.max_pixels
    )
    print(f"{found.path}: {found.kind}, {classes_in_words(len(found.classes))}")
    for name, counts in found.counts.items():
        least, most = min(counts, default=0), max(counts, default=0)
        each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        print(f"  {name}: {sum(counts):,} images, {each} a class")
    shown = list(enumerate(found.classes))[: arguments.classes]
    for number, name in shown:
        print(f"    {number:>4}  {name}  {'  '.join(f'{counts[number]:,}' for counts in found.counts.values())}")
    if len(found.classes) > len(shown):
        print(f"    ... {len(found.classes) - len(shown)} more (--classes N)")
    print(f"looked at {found.read:,} images:")
    print(f"  sizes: {_most_common({f'{w} x {h}': count for (w, h), count in found.sizes.items()})}")
    print(f"  modes: {_most_common(found.modes)}")
    print(f"  broken: {len(found.broken)}")
    for name, why in found.broken[:10]:
        print(f"    {name}: {why}")
    for text in found.notes:
        print(f"note: {text}")
    if lines := found.commands():
        print("to train on it:")
        print("\n".join(f"  {line}" for line in lines))
    else:
        print("None of these images can be read, so there is nothing to train on.")
    return EXIT_DONE


def _most_common(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = ", ".join(f"{name} ({count:,})" for name, count in ordered[:5])
    return f"{shown}, and {len(ordered) - 5} more" if len(ordered) > 5 else shown or "none"


def _check_range(name: str, value: float | None, low: float, high: float | None) -> None:
    if value is not None and not (low <= value and (high is None or value <= high)):
        wanted = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise UserError(f"--{name.replace('_', '-')} is {value}, expected {wanted}.")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="biggan-data",
        description="Image data for training.",
        epilog="Exit codes: 0 done, 2 bad input, 130 interrupted (what is packed is kept), 1 anything else.",
    )
    add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    prepare = commands.add_parser(
        "prepare",
        help="pack a source at one resolution, so that training reads it without decoding",
        description="Crop the centre along the long edge, resample by exact area averaging, and pack into memory maps. "
        "If it is stopped, give the same command again: it continues where it stopped.",
    )
    add = prepare.add_argument
    add(
        "source",
        metavar="SOURCE",
        help="a folder of images, parquet files, a data set of StyleGAN, .npz, CIFAR's python batches, or `digits`",
    )
    add("--resolution", type=int, required=True, metavar="R", help="height and width of the packed images, in pixels")
    add("--out", required=True, metavar="DIR", help="the directory to make; train with --data.path DIR")
    add("--workers", type=int, default=_cores(), metavar="N", help=f"processes that decode (default {_cores()})")
    add("--skip-broken", action="store_true", help="skip and list files that are broken or not images")
    add("--top-classes", type=int, metavar="K", help="keep only the K most common classes, renumbered 0 to K-1")
    add(
        "--val-fraction",
        type=float,
        metavar="F",
        help="hold out this share of each class in DIR/val, for a source without a validation split",
    )
    _add_reading(prepare)
    check = commands.add_parser(
        "check",
        help="read all of the prepared data and compare it with its digests",
        description="Verify prepared data.",
    )
    check.add_argument("path", metavar="DIR", help="the output of biggan-data prepare")
    inspect = commands.add_parser(
        "inspect",
        help="say what lies at a path, how it is read, and the command to train on it; nothing is written",
        description="Say what a data set is, how it is read, images by class, sizes, modes, broken files, what is left "
        "out, and the command to train on it.",
    )
    inspect.add_argument("path", metavar="PATH", help="a folder, a zip archive of StyleGAN, .npz, CIFAR's batches ...")
    _add_reading(inspect)
    inspect.add_argument("--all", action="store_true", help="look at every image, not at 10,000 of each split at most")
    inspect.add_argument("--classes", type=int, default=20, metavar="N", help="list the first N classes (default 20)")
    return parser


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """How a source is read."""
    add = parser.add_argument
    add(
        "--columns",
        "--data.columns",
        metavar="image=NAME,label=NAME",
        help="the columns of parquet files that have other names",
    )
    add(
        "--max-pixels",
        type=int,
        metavar="N",
        help="take images of more pixels for broken ones (default: 178956970, Pillow's limit)",
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(data_main())
