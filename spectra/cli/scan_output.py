"""How the spectra of a checkpoint are printed: as a table, or as comma-separated values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectra.networks.scan import Spectrum


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
        return "" if number != number and spectrum.finite is not False else f"{number:.{digits}g}"

    cells = [printable(spectrum.name), spectrum.kind, f"{spectrum.shape[0]} x {spectrum.shape[1]}"]
    cells += values(spectrum.sigma, spectrum.converged or not spectrum.finite)
    cells += [rounded(spectrum.ratio, 4), rounded(spectrum.frobenius, 4), rounded(spectrum.stable_rank, 3)]
    if with_operator:
        cells += values(spectrum.operator_sigma, spectrum.operator_converged or not spectrum.finite)
    return cells


def print_table(spectra: list[Spectrum], k: int, left_out: int, tol: float) -> None:
    """One row per weight, and notes on weights that were not finite, not converged or omitted."""
    headings = _headings(k, spectra)
    rows = [_cells(spectrum, k, len(headings) > k + 6) for spectrum in spectra]
    print_rows(headings, rows)
    notes = []
    broken = sum(s.finite is False for s in spectra)
    if broken:
        notes.append(f"{broken} of {len(spectra)} weights hold NaN or Inf.")
    if any((not s.converged and s.finite) or s.operator_converged is False for s in spectra):
        notes.append(f"* not converged to {tol:g}: a lower bound.")
    if left_out:
        notes.append(f"{left_out} further tensors (optimizer state, averages) were omitted: --all shows them.")
    notes += say_reasons([(s.name, s.reason) for s in spectra if s.finite is None], "computed")
    notes += say_reasons([(s.name, s.operator_reason) for s in spectra], "computed as linear maps")
    for note in notes:
        print(note)


def say_reasons(rows: Sequence[tuple[str, str | None]], what: str) -> list[str]:
    """A line for each reason why rows are empty, with the first of their names."""
    names: dict[str, list[str]] = {}
    for name, reason in rows:
        if reason is not None:
            names.setdefault(reason, []).append(printable(name))
    lines = []
    for reason, several in names.items():
        listed = ", ".join(several[:3]) + (", ..." if len(several) > 3 else "")
        lines.append(f"{len(several)} not {what} ({listed}): {printable(reason)}")
    return lines


def printable(text: str) -> str:
    """Text from a file with what is no character (line breaks, a terminal's commands) as escapes."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def print_rows(headings: list[str], rows: list[list[str]]) -> None:
    """A table: the first two columns on the left, the others on the right; in a terminal with lines."""
    if sys.stdout.isatty():
        _print_rich(headings, rows)
        return
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        left = [text.ljust(width) for text, width in zip(row[:2], widths[:2], strict=True)]
        right = [text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True)]
        print("  ".join(left + right).rstrip())


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


def print_csv(spectra: list[Spectrum], k: int) -> None:
    """A header, and one line per weight."""
    import csv

    records = [spectrum.as_dict() for spectrum in spectra]
    with_operator = any("operator_sigma" in record for record in records)
    writer = csv.writer(sys.stdout)
    fields = ["frobenius", "ratio", "stable_rank", "residual", "converged", "finite", "reason"]
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
