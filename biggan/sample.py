"""`python -m biggan.sample`, the same as `biggan-sample`: what torchrun starts."""

import sys

from biggan.cli.sample import sample_main

if __name__ == "__main__":
    sys.exit(sample_main())
