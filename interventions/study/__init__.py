"""Many branches: plans, and how they are run."""
