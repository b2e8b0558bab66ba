"""The configuration: its fields, its presets, and how it is laid over itself."""
