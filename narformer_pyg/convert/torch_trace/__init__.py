"""Torch modules as graphs, by recording the operators of one run on tensors without data."""
