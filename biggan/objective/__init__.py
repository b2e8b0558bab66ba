"""What is minimized: losses, penalties, and the distribution of z, each by name."""

from biggan.objective.registries import GRADIENT_PENALTIES, LATENTS, LOSSES, WEIGHT_PENALTIES

__all__ = ["GRADIENT_PENALTIES", "LATENTS", "LOSSES", "WEIGHT_PENALTIES"]
