"""What watches a run: evaluations, progress, what D thinks."""
