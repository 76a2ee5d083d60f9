"""Time of sections 1 to 3 of the metrics for whole masks, beside two rivals in the same run. `make bench` runs it.

arpack: scipy.sparse.linalg.eigsh(k=3, which="LM") on the float32 adjacency matrix of the layer and of every left-regular
subgraph, as the papers describe their own computation. hybrid: exact float32 Gram matrices, LAPACK to side 192, Lanczos
(ARPACK on the Gram matrix) beyond. Both get the unrolled masks and see the same graphs; reading files is left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
from scipy.sparse import bmat, csr_array
from scipy.sparse.linalg import eigsh

from pai_cli.compute.threads import blas_threads_for
from pai_cli.models.base import shapes_of
from pai_cli.models.registry import architecture
from pai_cli.spectral.metrics import MetricOptions, measure_layer

LAPACK_SIDE = 192


def masks_of(name: str, density: float, seed: int = 0) -> list[np.ndarray]:
    """Uniformly random masks of a network's weights, unrolled, exact count in each layer."""
    generator = np.random.default_rng(seed)
    masks = []
    for shape in shapes_of(architecture(name).build).values():
        if len(shape) < 2:
            continue
        size = int(np.prod(shape))
        mask = np.zeros(size, dtype=bool)
        mask[generator.permutation(size)[: round(density * size)]] = True
        masks.append(mask.reshape(shape[0], -1))
    return masks


def graphs_of(mask: np.ndarray) -> Iterator[np.ndarray]:
    """The layer without isolated vertices, then its left-regular subgraphs that count."""
    live = mask[mask.any(axis=1)][:, mask.any(axis=0)].astype(np.float32)
    yield live
    degrees = live.sum(axis=0).astype(int)
    for degree in np.unique(degrees):
        block = live[:, degrees == degree]
        block = block[block.any(axis=1)]
        if degree >= 3 and block.shape[1] >= 3 and degree * block.shape[1] >= 3 * block.shape[0]:
            yield block


def arpack(mask: np.ndarray) -> list[float]:
    """sigma_2 of every graph, from the bipartite adjacency matrix."""
    found = []
    for graph in graphs_of(mask):
        sparse = csr_array(graph)
        adjacency = bmat([[None, sparse], [sparse.T, None]], format="csr", dtype=np.float32)
        if adjacency.shape[0] <= 4:
            continue
        values = np.sort(np.abs(eigsh(adjacency, k=3, which="LM", return_eigenvectors=False)))
        found.append(float(values[0]))
    return found


def hybrid(mask: np.ndarray) -> list[float]:
    """sigma_2 of every graph, from the smaller side's Gram matrix."""
    found = []
    for graph in graphs_of(mask):
        gram = graph @ graph.T if graph.shape[0] <= graph.shape[1] else graph.T @ graph
        if gram.shape[0] <= LAPACK_SIDE:
            value = np.linalg.eigvalsh(gram.astype(np.float64))[-2]
        else:
            value = np.sort(eigsh(gram.astype(np.float64), k=2, which="LA", return_eigenvectors=False))[0]
        found.append(float(np.sqrt(max(value, 0.0))))
    return found


def ours(mask: np.ndarray) -> list[float]:
    """All of sections 1 to 3, with error bounds, with as many threads as the commands give it."""
    with blas_threads_for(min(mask.shape)):
        metrics = measure_layer(mask, None, MetricOptions())
    return [metrics.measures["sigma_2"].value or 0.0]


def best_of(repeats: int, solve: Callable[[np.ndarray], list[float]], masks: list[np.ndarray]) -> float:
    """The least wall time of `repeats` runs over all masks, in seconds."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        for mask in masks:
            solve(mask)
        times.append(time.perf_counter() - begin)
    return min(times)


def main() -> None:
    """Print a line a network and density."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet34", "vgg16-bn"])
    parser.add_argument("--densities", nargs="+", type=float, default=[0.01, 0.1])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("network    density graphs   ours s hybrid s arpack s /hybrid /arpack")
    for name in options.networks:
        for density in options.densities:
            masks = masks_of(name, density)
            graphs = sum(1 for mask in masks for _ in graphs_of(mask))
            mine = best_of(options.repeats, ours, masks)
            plain = best_of(options.repeats, hybrid, masks)
            bare = best_of(1, arpack, masks)
            print(
                f"{name:<10} {density:>7} {graphs:>6} {mine:>8.3f} {plain:>8.3f} {bare:>8.3f} "
                f"{plain / mine:>6.1f}x {bare / mine:>6.1f}x",
                flush=True,
            )


if __name__ == "__main__":
    main()
