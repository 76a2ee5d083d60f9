"""Pictures of what was measured, drawn by matplotlib (extra `plot`)."""
