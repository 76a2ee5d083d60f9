"""Scores of masks to an order."""
