"""`python -m biggan.bench`."""

import sys

from biggan.bench.command import main

if __name__ == "__main__":
    sys.exit(main())
