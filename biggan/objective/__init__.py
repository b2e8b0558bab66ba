"""What is minimized: losses, penalties, and the distribution of z, each found by name (registries.py)."""

from biggan.objective.registries import GRADIENT_PENALTIES, LATENTS, LOSSES, WEIGHT_PENALTIES

__all__ = ["GRADIENT_PENALTIES", "LATENTS", "LOSSES", "WEIGHT_PENALTIES"]
