"""Accuracy, loss and latency of neural architectures, predicted with graph-aided attention."""

__version__ = "0.1.0"
