"""One branch of a run: where it begins, what changes when, whether it is exact."""
