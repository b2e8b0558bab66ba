"""`spectra scan`: the top singular values of every weight in a checkpoint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectra.networks.scan import Convolution


def add_scan_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = (
        "The top singular values of every weight (two or more dimensions, reshaped to out x rest) in a checkpoint: "
        "safetensors, or a state dict as torch.save writes it. No code in the file is run. Without --all, optimizer "
        "state "
        "is omitted, and in a checkpoint of a known format also averages and moments."
    )
    parser.add_argument("file", metavar="FILE", help="the checkpoint")
    parser.add_argument("--k", type=int, default=3, help="how many singular values (default: 3)")
    parser.add_argument("--method", default="auto", help="auto, exact, krylov or svds (default: auto)")
    parser.add_argument(
        "--tol", type=float, default=1e-5, help="largest error, relative to the largest value (default: 1e-5)"
    )
    parser.add_argument(
        "--sort",
        default="network",
        help="network (the file's order), name, sigma, ratio, frobenius or stable_rank; numbers in descending order",
    )
    parser.add_argument("--all", action="store_true", help="scan every tensor, also averages and optimizer state")
    parser.add_argument(
        "--transposed",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names (or patterns) of transposed convolutions; only needed if neither bias nor spectral_norm shows it",
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
    from spectra.cli.scan_output import print_csv, print_table
    from spectra.networks.scan import scan

    operator = _convolution(options)
    with _progress() as on_progress:
        spectra, left_out = scan(
            options.file, options.k, options.method, options.tol, options.all, operator, options.sort, on_progress,
            options.transposed,
        )  # fmt: skip
    if options.json:
        import json

        print(json.dumps([spectrum.as_dict() for spectrum in spectra], indent=2, allow_nan=False))
    elif options.csv:
        print_csv(spectra, options.k)
    else:
        print_table(spectra, options.k, left_out, options.tol)
    sys.stdout.flush()
    return 0


def _convolution(options: argparse.Namespace) -> Convolution | None:
    """The operator options, checked; None where no spatial size was given."""
    from spectra.networks.scan import Convolution

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


@contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None] | None]:
    """A progress bar on stderr if it is a terminal, otherwise nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, name: bar.update(task, completed=done, total=total, description=name)
