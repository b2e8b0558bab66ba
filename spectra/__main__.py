"""`python -m spectra` is the command `spectra`."""

import sys

from spectra.cli import main

sys.exit(main())
