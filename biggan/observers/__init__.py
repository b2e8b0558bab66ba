"""What observes a run: evaluations, progress, sample grids, D's output, alarms."""
