"""What happened in each run, and whether runs differ."""
