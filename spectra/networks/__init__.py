"""Which matrices a network or a checkpoint file holds."""
