"""The `biggan-intervene` command."""
