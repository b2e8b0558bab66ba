"""Singular values of any PyTorch network's weights, and what they say about its training. Knows no GAN."""
