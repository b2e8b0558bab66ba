"""Branches of a training run with one thing changed (the paper's Appendix G)."""
