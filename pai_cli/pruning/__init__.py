"""Pruning methods and what they share: allocation, schedule, selection."""
