"""What was measured, on the disk and as tables."""
