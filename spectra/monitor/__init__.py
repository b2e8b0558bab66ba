"""Measuring while a network trains."""
