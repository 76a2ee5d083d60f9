"""Pruning methods that train: scores on frozen weights (Gem-Miner, edge-popup), or weights, to be rewound."""
