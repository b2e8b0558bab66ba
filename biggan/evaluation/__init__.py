"""Scores, pictures and exports of a generator."""
