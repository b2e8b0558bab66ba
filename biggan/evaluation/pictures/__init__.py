"""Grids, interpolations, neighbours and film strips."""
