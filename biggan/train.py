"""`python -m biggan.train`, the same as `biggan-train`: what torchrun starts.

The function `biggan.train` has the same name. Importing this module gives the function, so that it cannot be hidden.
"""

import sys

if __name__ == "biggan.train":
    from biggan.run.python import train

    sys.modules[__name__] = train  # type: ignore[assignment]

if __name__ == "__main__":
    from biggan.cli.train import train_main

    sys.exit(train_main())
