"""The engine: singular values of bipartite graphs, with error bounds, and what is measured from them."""
