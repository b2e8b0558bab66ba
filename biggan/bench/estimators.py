"""`python -m biggan.bench.estimators`: spectra's estimators on BigGAN 128's weight matrices, timed side by side."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

from spectra.bench.estimators import options_parser, run_options


def biggan_shapes(ch: int = 96, classes: int = 1000) -> list[tuple[int, int]]:
    """Out x rest of every weight of BigGAN 128 (Appendix B, Table 4): 42 in G, 23 in D, 158 million numbers at ch
    96."""
    g, d = [16, 16, 8, 4, 2, 1], [1, 2, 4, 8, 16, 16]
    z, embedding = 20, 128
    condition = z + embedding
    shapes = [(classes, embedding), (16 * g[0] * ch, z)]
    for width_in, width_out in itertools.pairwise(g):
        before, after = width_in * ch, width_out * ch
        shapes += [(before, condition)] * 2 + [(after, condition)] * 2
        shapes += [(after, 9 * before), (after, 9 * after), (after, before)]
    shapes += [*_non_local(g[4] * ch), (3, 9 * ch)]
    before = 3
    for i, width in enumerate(d):
        after = width * ch
        shapes += [(after, 9 * before), (after, 9 * after)]
        shapes += (
            [(after, before)] if i < len(d) - 1 else []
        )  # the last block keeps its width and has no skip convolution
        before = after
    return shapes + _non_local(d[0] * ch) + [(1, before), (classes, before)]


def _non_local(width: int) -> list[tuple[int, int]]:
    return [(width // 8, width), (width // 8, width), (width // 2, width), (width, width // 2)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = options_parser("python -m biggan.bench.estimators", __doc__.split(": ", 1)[1])
    parser.add_argument("--quick", action="store_true", help="ch 8 and spiked weights only: seconds instead of minutes")
    parser.add_argument("--ch", type=int, default=96, help="channel multiplier, a multiple of 8 (default: 96)")
    options = parser.parse_args(arguments)
    if options.ch < 8 or options.ch % 8:
        parser.error(f"--ch is a multiple of 8, from 8; got {options.ch}")
    if options.quick:
        options.ch, options.kinds = 8, ["spiked"]
    return run_options(parser, options, biggan_shapes(options.ch), f"BigGAN 128 at ch {options.ch}")


if __name__ == "__main__":
    sys.exit(main())
