"""The record of a run: on disk, and as tables."""
