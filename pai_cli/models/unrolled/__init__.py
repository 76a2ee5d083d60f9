"""Networks unrolled for one input: the graph of their elements, and the paths of kept weights through it."""
