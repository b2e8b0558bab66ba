"""`python -m biggan.train`, the same as `biggan-train`: what torchrun starts."""

import sys

from biggan.cli.train import train_main

if __name__ == "__main__":
    sys.exit(train_main())
