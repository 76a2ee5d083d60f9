"""Searches for a better connected mask."""
