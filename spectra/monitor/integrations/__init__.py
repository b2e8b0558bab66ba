"""The monitor in other training loops."""
