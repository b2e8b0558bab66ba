"""`biggan-data prepare`: any source as packed files."""
