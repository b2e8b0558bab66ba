"""The command `spectra`. Each subcommand adds its own options and is one function, which imports what is heavy."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectra.networks.scan import Convolution, Spectrum

EPILOG = """\
examples:
  spectra scan model.safetensors
  spectra scan model.pt --sort ratio --k 5
  spectra scan model.pt --operator 32x32 --json
  spectra plot runs/digits --figure 20
  spectra events runs/digits
  spectra detect runs/digits
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 2 for bad input (one paragraph on stderr), 130 when interrupted."""
    parser = argparse.ArgumentParser(
        prog="spectra",
        description="Singular values of the weights of any PyTorch network.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run_command(options)
    except (ValueError, TypeError, OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError):  # the reader (head, less) has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"spectra: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("spectra: interrupted", file=sys.stderr)
        return 130


def _add_scan(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "scan",
        help="the top singular values of every weight in a checkpoint",
        description=(
            "The top singular values of every weight (two or more dimensions, reshaped to out x rest) in a checkpoint: "
            "safetensors, or a state dict as torch.save writes it. Nothing in the file is run. Optimizers' state, and "
            "of this project's own checkpoints all but G and D, are left out unless --all is given."
        ),
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
        help="network (the file's order), name, sigma, ratio, frobenius or stable_rank; numbers descending",
    )
    parser.add_argument("--all", action="store_true", help="leave nothing out")
    parser.add_argument(
        "--transposed",
        nargs="+",
        default=[],
        metavar="NAME",
        help="convolutions (or patterns) that are transposed, beside those whose bias or spectral_norm tells it",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON list of objects; null stands for NaN and Inf")
    form.add_argument("--csv", action="store_true", help="comma-separated values with a header")
    maps = parser.add_argument_group(
        "convolutions as linear maps",
        "Beside the matrix, the map on images that the convolution is; its first value is the layer's Lipschitz "
        "constant. A file tells only the kernels, so the rest is taken alike for all of them.",
    )
    maps.add_argument("--operator", metavar="HxW", help="spatial size of the input (L, HxW or DxHxW)")
    maps.add_argument("--stride", type=int, default=1, help="default: 1")
    maps.add_argument("--padding", type=int, help="on each side (default: half the kernel)")
    maps.add_argument("--dilation", type=int, default=1, help="default: 1")
    maps.add_argument("--circular", action="store_true", help="circular padding in place of zeros")
    parser.set_defaults(run_command=_scan)


def _add_plot(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "plot",
        help="the paper's figures from a run's record",
        description=(
            "Draw a run's record as the paper draws its own: 3 is sigma_0 of every layer, 20 the top three singular "
            "values, 27 Frobenius norms, losses and the variance of gradient norms, 29 a closeup of the sharpest jump. "
            "Layers are coloured from red to violet with depth."
        ),
    )
    parser.add_argument("run", metavar="RUN", help="the run directory; the run may still be training")
    parser.add_argument("--figure", choices=["3", "20", "27", "29", "all"], default="all", help="default: all")
    parser.add_argument("--out", metavar="DIR", help="where to write figure-*.png (default: RUN/figures)")
    parser.set_defaults(run_command=_plot)


def _add_events(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "events", help="what happened in a run", description="List a run's events, one line each: step, time, what."
    )
    parser.add_argument("run", metavar="RUN", help="the run directory")
    parser.add_argument("--all", action="store_true", help="also those that a resume has superseded, and every detail")
    parser.set_defaults(run_command=_events)


def _add_detect(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "detect",
        help="spikes, explosions, jumps of D's loss, a dead D and the collapse in a run's record",
        description=(
            "Run all detectors over a run's record and its evaluations, by the thresholds of now, and list what they "
            "find: when it began (onset: the last step at which all was well), when it could be said, and the lead "
            "time, in steps from then to the onset of the collapse. A spike's height is a ratio, and its decay the "
            "steps until half of it was gone."
        ),
    )
    parser.add_argument("run", metavar="RUN", help="the run directory; the run may still be training")
    parser.add_argument("--json", action="store_true", help="a JSON list of objects")
    parser.set_defaults(run_command=_detect)


COMMANDS: list[Callable[[argparse._SubParsersAction], None]] = [_add_scan, _add_plot, _add_events, _add_detect]


def _detect(options: argparse.Namespace) -> int:
    from spectra.detect.online import thinned
    from spectra.detect.table import finding_rows, print_findings

    rows = finding_rows(options.run)
    if thinned(options.run):
        print(
            "note: this record was thinned; jumps of D's loss, which show at every step only, were not looked for.",
            file=sys.stderr,
        )
    if options.json:
        import json

        print(json.dumps(rows, indent=2, allow_nan=False))
    else:
        print_findings(rows)
    return 0


def _plot(options: argparse.Namespace) -> int:
    from spectra.draw.figures import draw_figures

    for path in draw_figures(options.run, None if options.figure == "all" else [options.figure], options.out):
        print(path)
    return 0


def _events(options: argparse.Namespace) -> int:
    import time
    from pathlib import Path

    from spectra.record.segments import read_event_lines

    if not Path(options.run, "events.jsonl").is_file():
        raise FileNotFoundError(f"{options.run} has no events.jsonl. Give a run directory")
    for event in read_event_lines(options.run):
        superseded = event.pop("superseded", False)
        if superseded and not options.all:
            continue
        step, kind, when = event.pop("step"), event.pop("event"), event.pop("time", None)
        clock = "" if when is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
        details = " ".join(_in_words(event, whole=options.all))
        print(f"{step:>9}  {clock:<19}  {kind:<12} {'(superseded) ' if superseded else ''}{details}".rstrip())
    return 0


def _in_words(fields: Mapping[str, Any], *, whole: bool) -> Iterator[str]:
    """name=value, numbers to four digits; not `whole`: digests cut short, and what scores depend on left out."""
    for name, value in fields.items():
        if value in ([], {}, None) or (name == "settings" and not whole):
            continue
        if name == "scores" and isinstance(value, dict):
            yield from _in_words(value, whole=whole)
        elif isinstance(value, float):
            yield f"{name}={value:.4g}"
        else:
            yield f"{name}={value[:12] if name == 'digest' and not whole else value}"


def _scan(options: argparse.Namespace) -> int:
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
        _print_csv(spectra, options.k)
    else:
        _print_table(spectra, options.k, left_out, options.tol)
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
    """A progress bar on stderr where that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, name: bar.update(task, completed=done, total=total, description=name)


def _headings(k: int, spectra: list[Spectrum]) -> list[str]:
    headings = ["layer", "kind", "shape", *(f"sigma_{i}" for i in range(k)), "ratio", "frobenius", "stable rank"]
    if any(spectrum.operator_sigma is not None for spectrum in spectra):
        headings += [f"operator_{i}" for i in range(k)]
    return headings


def _cells(spectrum: Spectrum, k: int, with_operator: bool) -> list[str]:
    """A row of the table: four significant digits; fewer values than k leave cells empty."""

    def values(numbers: tuple[float, ...] | None, converged: bool | None) -> list[str]:
        texts = [f"{number:.4g}{'' if converged else '*'}" for number in numbers or ()]
        return texts + [""] * (k - len(texts))

    def rounded(number: float, digits: int) -> str:
        return "" if number != number and spectrum.finite else f"{number:.{digits}g}"

    cells = [spectrum.name, spectrum.kind, f"{spectrum.shape[0]} x {spectrum.shape[1]}"]
    cells += values(spectrum.sigma, spectrum.converged or not spectrum.finite)
    cells += [rounded(spectrum.ratio, 4), rounded(spectrum.frobenius, 4), rounded(spectrum.stable_rank, 3)]
    if with_operator:
        cells += values(spectrum.operator_sigma, spectrum.operator_converged or not spectrum.finite)
    return cells


def _print_table(spectra: list[Spectrum], k: int, left_out: int, tol: float) -> None:
    headings = _headings(k, spectra)
    rows = [_cells(spectrum, k, len(headings) > k + 6) for spectrum in spectra]
    if sys.stdout.isatty():
        _print_rich(headings, rows)
    else:
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        for row in (headings, *rows):
            left = [text.ljust(width) for text, width in zip(row[:2], widths[:2], strict=True)]
            right = [text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True)]
            print("  ".join(left + right).rstrip())
    notes = []
    if any(not s.finite for s in spectra):
        notes.append(f"{sum(not s.finite for s in spectra)} of {len(spectra)} weights hold NaN or Inf.")
    if any((not s.converged and s.finite) or s.operator_converged is False for s in spectra):
        notes.append(f"* not converged to {tol:g}: a lower bound.")
    if left_out:
        notes.append(f"{left_out} further tensors (optimizer state, averages) were left out: --all shows them.")
    for note in notes:
        print(note)


def _print_rich(headings: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i < 2 else "right", no_wrap=True)
    for row in rows:
        bad = "nan" in row[3:] or "inf" in row[3:6]
        table.add_row(*(Text(cell) for cell in row), style="bold red" if bad else "")
    console = Console()
    # Where the terminal is too narrow it may wrap the lines: folded names and cropped numbers are worse.
    wide = Console(width=10_000)
    console.width = max(console.width, wide.measure(table).maximum)
    console.print(table)


def _print_csv(spectra: list[Spectrum], k: int) -> None:
    import csv

    records = [spectrum.as_dict() for spectrum in spectra]
    with_operator = any("operator_sigma" in record for record in records)
    writer = csv.writer(sys.stdout)
    fields = ["frobenius", "ratio", "stable_rank", "residual", "converged", "finite"]
    headings = ["name", "kind", "rows", "columns", *(f"sigma_{i}" for i in range(k)), *fields]
    if with_operator:
        headings += [*(f"operator_sigma_{i}" for i in range(k)), "operator_converged"]
    writer.writerow(headings)
    for spectrum, record in zip(spectra, records, strict=True):
        row = [spectrum.name, spectrum.kind, *spectrum.shape, *_padded(spectrum.sigma, k)]
        row += [getattr(spectrum, field) for field in fields]
        if with_operator:
            row += [*_padded(spectrum.operator_sigma or (), k), record.get("operator_converged", "")]
        writer.writerow(row)


def _padded(numbers: Sequence[float], k: int) -> list[float | str]:
    return [*numbers, *[""] * (k - len(numbers))]


if __name__ == "__main__":
    sys.exit(main())
