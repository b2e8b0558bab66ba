"""Images with labels, in a training and a validation split."""
