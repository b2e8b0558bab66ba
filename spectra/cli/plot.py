"""`spectra plot`: figures from a run's record."""

from __future__ import annotations

import argparse


def add_plot_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    from spectra.draw.figures import FIGURES
    from spectra.extensions import load_extensions

    load_extensions()
    words = (f"{name}: {(draw.__doc__ or '').splitlines()[0]}" for name, draw in FIGURES.items())
    parser.description = (
        "Draw figures from a run's record. A figure whose name is a number follows the paper's figure of that number. "
        f"Layers are coloured from red to violet with depth. {' '.join(words)}"
    )
    parser.add_argument("run", metavar="RUN", help="the run directory; the run may still be training")
    parser.add_argument("--figure", choices=[*FIGURES, "all"], default="all", help="default: all")
    parser.add_argument("--out", metavar="DIR", help="where to write figure-*.png (default: RUN/figures)")


def run_plot(options: argparse.Namespace) -> int:
    """Draw, and print the paths; returns the exit code."""
    from spectra.draw.figures import draw_figures

    for path in draw_figures(options.run, None if options.figure == "all" else [options.figure], options.out):
        print(path)
    return 0
