"""The commands: each parses its command line and calls the package that does the work."""
