"""The page of one run: `spectra report RUN`."""
