"""Layers built to be well connected, instead of searched for."""
