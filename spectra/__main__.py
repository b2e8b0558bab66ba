"""`python -m spectra` is the command `spectra`."""

import sys

from spectra.cli.commands import main

sys.exit(main())
