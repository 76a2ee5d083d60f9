"""Pruning a checkpoint that does not fit in memory: scores made piece by piece, selection in passes."""
