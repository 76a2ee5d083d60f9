"""What else computes these singular values, written from the papers' descriptions; nobody else's code."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from machine import Mask
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackNoConvergence, eigsh, svds

from pai_cli.spectral.conventions import LEAST_DEGREE, LEAST_LEFT

Matrix = NDArray[np.float32]
Wide = NDArray[np.float64]

LAPACK_SIDE = 192

RESIDUAL = 1e-5  # relative, at which Lanczos stops

LOOK = 5  # steps between looks at the residuals


def graphs_of(mask: Mask, every: bool = False) -> Iterator[Matrix]:
    """The layer without isolated vertices, then its left-regular subgraphs that count, as 0/1 matrices.

    `every`: also those whose mean degree on either side is under 3, of which no measure is taken.
    """
    live = mask[mask.any(axis=1)][:, mask.any(axis=0)].astype(np.float32)
    yield live
    degrees = live.sum(axis=0).astype(int)
    for degree in np.unique(degrees):
        chosen = degrees == degree
        if chosen.sum() < LEAST_LEFT["h23"] or chosen.all():
            continue
        block = live[:, chosen]
        block = block[block.any(axis=1)]
        if every or (degree >= LEAST_DEGREE and degree * block.shape[1] >= LEAST_DEGREE * block.shape[0]):
            yield block


def arpack(mask: Mask, every: bool = False) -> list[float]:
    """sigma_2 of every graph, from eigsh(k=3, which="LM") on its float32 bipartite adjacency matrix."""
    found = []
    for graph in graphs_of(mask, every):
        side = sum(graph.shape)
        if side <= 4:
            continue
        right, left = np.nonzero(graph)
        left += graph.shape[0]
        ends = (np.concatenate([right, left]), np.concatenate([left, right]))
        adjacency = csr_array((np.ones(2 * len(left), dtype=np.float32), ends), shape=(side, side))
        try:
            values = eigsh(adjacency, k=3, which="LM", return_eigenvectors=False)
        except ArpackNoConvergence as failure:
            values = failure.eigenvalues
        found.append(float(np.min(np.abs(values), initial=np.inf)))
    return found


def hybrid(mask: Mask, every: bool = False) -> list[float]:
    """sigma_2 of every graph, from the float32 Gram matrix of the smaller side, which is exact: LAPACK, or Lanczos."""
    found = []
    for graph in graphs_of(mask, every):
        gram = graph @ graph.T if graph.shape[0] <= graph.shape[1] else graph.T @ graph
        if gram.shape[0] < 2:
            continue
        wide = gram.astype(np.float64)
        value = float(np.linalg.eigvalsh(wide)[-2]) if wide.shape[0] <= LAPACK_SIDE else lanczos(wide)
        found.append(max(value, 0.0) ** 0.5)
    return found


def lanczos(gram: Wide) -> float:
    """The second largest eigenvalue by Lanczos with one vector and full reorthogonalisation, in float64.

    A value that is there twice is found once, and a small residual does not say that a value is the second: it is quick
    and unproved.
    """
    n = gram.shape[0]
    basis, diagonal, off = np.zeros((n, n)), np.zeros(n), np.zeros(n)
    basis[0] = np.random.default_rng(0).standard_normal(n)
    basis[0] /= np.linalg.norm(basis[0])
    for k in range(n):
        known = basis[: k + 1]
        image = gram @ known[k]
        diagonal[k] = image @ known[k]
        for _ in range(2):
            image -= (known @ image) @ known
        off[k] = np.linalg.norm(image)
        if k % LOOK == LOOK - 1 or k == n - 1 or off[k] < 1e-10 * abs(diagonal[0]):
            small = np.diag(diagonal[: k + 1]) + np.diag(off[:k], 1) + np.diag(off[:k], -1)
            values, vectors = np.linalg.eigh(small)
            exact = off[k] * np.abs(vectors[-1, -2:]) < RESIDUAL * values[-2:]
            if exact.all() or k == n - 1 or off[k] < 1e-10 * abs(diagonal[0]):
                return float(values[-2]) if k else 0.0
        basis[k + 1] = image / off[k]
    return 0.0


def golub_kahan(mask: Mask, most: int = 400) -> tuple[float, float]:
    """sigma_1, sigma_2 by Golub-Kahan bidiagonalisation of the dense float32 matrix, with full reorthogonalisation.

    NumPy's float32 products of matrix and vector run at memory bandwidth; the residual is held to 1e-5 of the value.
    """
    matrix = mask.astype(np.float32)
    rows, columns = matrix.shape
    left, right = np.empty((most, rows), np.float32), np.empty((most + 1, columns), np.float32)
    diagonal, off = np.zeros(most), np.zeros(most)
    start = np.random.default_rng(0).standard_normal(columns, dtype=np.float32)
    right[0] = start / np.linalg.norm(start)
    for k in range(most):
        image = matrix @ right[k]
        if k:  # the neighbour first: in float32 the rest of Gram-Schmidt alone does not hold
            image -= np.float32(off[k - 1]) * left[k - 1]
            image -= (left[:k] @ image) @ left[:k]
        diagonal[k] = np.linalg.norm(image)
        left[k] = image / np.float32(diagonal[k])
        image = left[k] @ matrix
        image -= np.float32(diagonal[k]) * right[k]
        image -= (right[: k + 1] @ image) @ right[: k + 1]
        off[k] = np.linalg.norm(image)
        right[k + 1] = image / np.float32(off[k])
        if k % LOOK == LOOK - 1 or k == most - 1:
            vectors, values, _ = np.linalg.svd(np.diag(diagonal[: k + 1]) + np.diag(off[:k], 1))
            if (off[k] * np.abs(vectors[-1, :2]) < RESIDUAL * values[:2]).all():
                break
    return float(values[0]), float(values[1])


def sparse_svds(mask: Mask) -> tuple[float, float]:
    """sigma_1, sigma_2 by scipy.sparse.linalg.svds (ARPACK) on the float32 CSR matrix."""
    values = svds(csr_array(mask.astype(np.float32)), k=2, return_singular_vectors=False)
    return float(np.max(values)), float(np.min(values))
