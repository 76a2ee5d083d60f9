"""Every pruning method, a file each, and what they share."""
