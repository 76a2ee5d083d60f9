"""Masks, checkpoints and result tables on disk."""
