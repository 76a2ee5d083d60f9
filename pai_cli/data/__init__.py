"""Labelled images to prune and train with: read from disk, checked, normalised, fitted to a network."""
