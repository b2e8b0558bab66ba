"""One step of adversarial training, and the loop around it."""
