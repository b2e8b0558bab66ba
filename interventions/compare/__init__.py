"""Measures the outcome of each run, and tests whether runs differ."""
