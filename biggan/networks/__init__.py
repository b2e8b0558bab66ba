"""G, D and what their layers are made of."""
