"""pai: prune neural networks at initialisation, and measure, rank and search masks."""

__version__ = "0.1.0"
