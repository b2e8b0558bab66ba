"""Other people's checkpoints as run directories: what their layouts call each tensor, and what differs in training."""
