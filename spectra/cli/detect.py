"""`spectra detect`: what went wrong in a run, found in its record and events."""

from __future__ import annotations

import argparse
import sys


def add_detect_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    from spectra.detect.registry import find_detectors

    what = ", ".join(detector.what for detector in find_detectors())
    parser.description = (
        f"Run all detectors over a run's record and events, with the present thresholds: {what}. For each finding it "
        "lists the onset (the last step before it began), the step at which it was found, and the lead (the steps from "
        "then to the onset of the run's outcome, such as its collapse). A spike's height is a ratio; its decay is the "
        "number of steps until half of the height was gone."
    )
    parser.add_argument("run", metavar="RUN", help="the run directory; the run may still be training")
    parser.add_argument(
        "--loss", action="append", default=[], metavar="NAME",
        help="a recorded scalar that is a loss; may be given again (default: every scalar whose name says so)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="a JSON list of objects")


def run_detect(options: argparse.Namespace) -> int:
    """Run the detectors and print the findings; returns the exit code."""
    from spectra.detect.online import left_out
    from spectra.detect.table import finding_rows, print_findings

    rows = finding_rows(options.run, options.loss)
    if without := left_out(options.run):
        print(
            f"note: this record was thinned, so it was not searched for "
            f"{', '.join(detector.what for detector in without)}, "
            "which need every step.",
            file=sys.stderr,
        )
    if options.json:
        import json

        print(json.dumps(rows, indent=2, allow_nan=False))
    else:
        print_findings(rows)
    return 0
