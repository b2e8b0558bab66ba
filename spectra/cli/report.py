"""`spectra report`: one page of a run."""

from __future__ import annotations

import argparse


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = (
        "Write one HTML page of a run, which needs no other file and can be printed: the ten layers to look at and "
        "why, spectra by depth and over time, what grew most, gradients, scalars and events."
    )
    parser.add_argument("run", metavar="RUN", help="the run directory; the run may still be training")
    parser.add_argument("--out", metavar="FILE", help="the page to write (default: RUN/report.html)")


def run_report(options: argparse.Namespace) -> int:
    """Write the page, and print its path; returns the exit code."""
    from spectra.report.document import write_run_page

    print(write_run_page(options.run, options.out))
    return 0
