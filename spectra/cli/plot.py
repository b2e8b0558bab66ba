"""`spectra plot`: figures from the records of runs."""

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
        f"Layers are coloured from red to violet with depth. {' '.join(words)} "
        "Several runs are laid over one another in one figure, a line a run: their losses, the largest sigma_0 of each "
        "network, and sigma_0 of the layers that grew most."
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="a run directory; it may still be training. Several: an overlay"
    )
    parser.add_argument("--figure", choices=[*FIGURES, "all"], default="all", help="of one run; default: all")
    parser.add_argument(
        "--out", metavar="DIR", help="where to write figure-*.png (default: RUN/figures; of several runs: here)"
    )


def run_plot(options: argparse.Namespace) -> int:
    """Draw, and print the paths, each with what it shows; returns the exit code."""
    if len(options.runs) > 1:
        from spectra.draw.overlay import overlay_runs

        if options.figure != "all":
            raise ValueError(
                f"figure {options.figure} is of one run, and {len(options.runs)} were given: omit --figure for an "
                "overlay, or give one run"
            )
        print(overlay_runs(options.runs, options.out))
        return 0
    from spectra.draw.figures import draw_with_titles

    chosen = None if options.figure == "all" else [options.figure]
    for path, title in draw_with_titles(options.runs[0], chosen, options.out):
        print(f"{path}  {title}", flush=True)
    return 0
