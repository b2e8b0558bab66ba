"""The feature networks that scores are computed in."""
