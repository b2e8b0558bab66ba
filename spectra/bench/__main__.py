"""`python -m spectra.bench`."""

from spectra.bench.estimators import main

if __name__ == "__main__":
    main()
