"""Training of masked networks, and the searches that train scores."""
