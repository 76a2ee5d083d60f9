"""What masks agree on: the maximal connected subgraphs that many of them hold in full."""
