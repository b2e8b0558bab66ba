"""How good the generator is."""
