"""The presets that come with the package."""
