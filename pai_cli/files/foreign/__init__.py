"""Masks that other tools wrote: one file a kind, and the file formats they come in."""
