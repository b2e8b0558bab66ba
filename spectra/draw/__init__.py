"""Figures and TensorBoard panels."""
