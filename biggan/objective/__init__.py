"""What is minimized: losses, penalties, and the distribution of z."""
