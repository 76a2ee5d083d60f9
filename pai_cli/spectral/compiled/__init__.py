"""The engine's compiled part: many small dense problems in one call. Built where there is a C compiler, not required."""
