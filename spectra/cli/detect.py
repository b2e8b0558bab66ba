"""`spectra detect`: what went wrong in a run, by its record and events."""

from __future__ import annotations

import argparse
import sys


def add_detect_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    from spectra.detect.registry import find_detectors

    what = ", ".join(detector.what for detector in find_detectors())
    parser.description = (
        f"Run all detectors over a run's record and events, with today's thresholds: {what}. For each finding it lists "
        "when it began (onset: the last step at which all was well), when it was found, and the lead: the steps from "
        "then to the onset of what the run led up to. A spike's height is a ratio, and its decay the steps until half "
        "of it was gone."
    )
    parser.add_argument("run", metavar="RUN", help="the run directory; the run may still be training")
    parser.add_argument("--json", action="store_true", help="a JSON list of objects")


def run_detect(options: argparse.Namespace) -> int:
    """Search, and print; returns the exit code."""
    from spectra.detect.online import left_out
    from spectra.detect.table import finding_rows, print_findings

    rows = finding_rows(options.run)
    if without := left_out(options.run):
        print(
            f"note: this record was thinned, and not searched for {', '.join(detector.what for detector in without)}: "
            "those show at every step only.",
            file=sys.stderr,
        )
    if options.json:
        import json

        print(json.dumps(rows, indent=2, allow_nan=False))
    else:
        print_findings(rows)
    return 0
