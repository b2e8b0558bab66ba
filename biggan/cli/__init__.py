"""The commands: each reads its line, and has the work done elsewhere."""
