"""`spectra scan`: the top singular values of every weight in a checkpoint."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectra.networks.compare import LayerChange
    from spectra.networks.convolutions import Convolution
    from spectra.networks.scan import Spectrum


def add_scan_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = (
        "The top singular values of every weight (two or more dimensions, reshaped to out x rest) in a checkpoint: "
        "safetensors, in shards or not, a state dict as torch.save writes it, or .npz; or a folder of these. No code "
        "in the file is run. A weight that cannot be taken is a row with its reason. Without --all, optimizer state is "
        "omitted, and in a checkpoint of a known format also averages and moments."
    )
    parser.set_defaults(wrong_usage=parser.error)
    parser.add_argument("file", metavar="FILE", nargs="?", help="the checkpoint, an index of shards, or a folder")
    parser.add_argument(
        "--compare", nargs="+", default=[], metavar="FILE",
        help="what changed between two checkpoints, A and B, by layer: `--compare A B`, or `A --compare B`",
    )  # fmt: skip
    parser.add_argument("--k", type=int, default=3, help="how many singular values (default: 3)")
    parser.add_argument("--method", default="auto", help="auto, exact, krylov or svds (default: auto)")
    parser.add_argument(
        "--tol", type=float, default=1e-5, help="largest error, relative to the largest value (default: 1e-5)"
    )
    parser.add_argument(
        "--sort",
        default="network",
        help="network (the file's order), name, sigma, ratio, frobenius or stable_rank; numbers in descending order. "
        "With --compare: network, name or change",
    )
    parser.add_argument("--all", action="store_true", help="scan every tensor, also averages and optimizer state")
    parser.add_argument(
        "--transposed",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names (or patterns) of transposed convolutions; only needed if neither bias nor spectral_norm shows it",
    )
    parser.add_argument(
        "--split-qkv", action="store_true", help="take fused attention apart: NAME.q, NAME.k and NAME.v, three rows"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON list of objects; null stands for NaN and Inf")
    form.add_argument("--csv", action="store_true", help="comma-separated values with a header")
    maps = parser.add_argument_group(
        "convolutions as linear maps",
        "Also compute the spectrum of each convolution as a linear map on images; its first value is the layer's "
        "Lipschitz "
        "constant. A file contains only the kernels, so the options below apply to all convolutions.",
    )
    maps.add_argument("--operator", metavar="HxW", help="spatial size of the input (L, HxW or DxHxW)")
    maps.add_argument("--stride", type=int, default=1, help="default: 1")
    maps.add_argument("--padding", type=int, help="on each side (default: half the kernel)")
    maps.add_argument("--dilation", type=int, default=1, help="default: 1")
    maps.add_argument("--circular", action="store_true", help="circular padding instead of zeros")


def run_scan(options: argparse.Namespace) -> int:
    """Scan, and print; returns the exit code."""
    files = [*([options.file] if options.file is not None else []), *options.compare]
    if len(files) != (2 if options.compare else 1):
        expected = "two files: --compare A B" if options.compare else "a FILE"
        options.wrong_usage(f"expected {expected}; got {len(files)}")
    operator = _convolution(options)
    if options.compare:
        return _run_compare(options, files)
    from spectra.cli.scan_output import print_csv, print_table
    from spectra.networks.scan import scan

    with _progress() as on_progress:
        spectra, left_out = scan(
            options.file, options.k, options.method, options.tol, options.all, operator, options.sort, on_progress,
            options.transposed, options.split_qkv, _say,
        )  # fmt: skip
    if options.json:
        _print_json(spectra)
    elif options.csv:
        print_csv(spectra, options.k)
    else:
        print_table(spectra, options.k, left_out, options.tol)
    sys.stdout.flush()
    return 0


def _run_compare(options: argparse.Namespace, files: list[str]) -> int:
    """Compare two checkpoints, and print; returns the exit code."""
    from spectra.cli.compare_output import print_changes, print_changes_csv
    from spectra.networks.compare import compare_checkpoints

    if options.operator is not None:
        raise ValueError("--operator is for a single file: omit it with --compare, or scan A and B one after the other")
    with _progress() as on_progress:
        changes = compare_checkpoints(
            files[0], files[1], options.k, options.method, options.tol, options.all, options.sort, on_progress,
            options.transposed, options.split_qkv,
        )  # fmt: skip
    if options.json:
        _print_json(changes)
    elif options.csv:
        print_changes_csv(changes, options.k)
    else:
        print_changes(changes, options.k, options.tol)
    sys.stdout.flush()
    return 0


def _print_json(rows: Sequence[Spectrum] | Sequence[LayerChange]) -> None:
    import json

    print(json.dumps([row.as_dict() for row in rows], indent=2, allow_nan=False))


def _say(note: str) -> None:
    print(f"spectra: {note}", file=sys.stderr, flush=True)


def _convolution(options: argparse.Namespace) -> Convolution | None:
    """The operator options, checked; None where no spatial size was given."""
    from spectra.networks.convolutions import Convolution

    changed = [name for name in ("stride", "dilation") if getattr(options, name) != 1]
    changed += ["padding"] * (options.padding is not None) + ["circular"] * options.circular
    if options.operator is None:
        if changed:
            raise ValueError(
                f"--{changed[0]} describes convolutions as linear maps, which need a spatial size: add --operator HxW, "
                "for example --operator 32x32"
            )
        return None
    parts = options.operator.lower().split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts) or len(parts) > 3:
        raise ValueError(
            f"--operator takes the spatial size of the convolutions' input as HxW, for example 32x32 (or L, or DxHxW); "
            f"got {options.operator!r}"
        )
    if options.stride < 1 or options.dilation < 1 or (options.padding or 0) < 0:
        raise ValueError("--stride and --dilation are at least 1, --padding at least 0")
    mode = "circular" if options.circular else "zeros"
    return Convolution(tuple(map(int, parts)), options.stride, options.padding, options.dilation, mode)


PROGRESS_EVERY = 10.0
"""Seconds between the lines that tell of progress where there is no terminal."""


@contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    """Progress on stderr: a bar if it is a terminal, otherwise a line now and then."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from spectra.cli.scan_output import printable

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, name: bar.update(
            task, completed=done, total=total, description=escape(printable(name))
        )


def _lines() -> Callable[[int, int, str], None]:
    from spectra.cli.scan_output import printable

    last = time.monotonic()

    def on_progress(done: int, total: int, name: str) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_EVERY and done < total:
            last = time.monotonic()
            _say(f"{done} of {total} weights done, next {printable(name)}")

    return on_progress
