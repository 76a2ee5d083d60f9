"""One file a command: options, one call below, show."""
