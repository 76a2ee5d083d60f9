"""Where mask files meet the engine: reports of many masks, one after the other."""
