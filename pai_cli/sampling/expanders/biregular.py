"""Random biregular layers: every row has as many edges as another, every column too, or one more.

Matrices are (rows, columns), boolean.
"""

from __future__ import annotations

from math import ceil, log2
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, np.dtype[np.bool_]]
Rng = np.random.Generator

LEAST_ROUNDS, ROUNDS_A_DOUBLING = 10, 4


def biregular(rows: int, columns: int, edges: int, rng: Rng) -> Matrix:
    """A random simple bipartite graph of exactly `edges` edges, 0 to rows * columns.

    Rows have floor(edges / rows) edges or one more, columns floor(edges / columns) or one more; which have one more is
    drawn uniformly. Given these degrees the graph is drawn by a chain of global curveball trades: all rows are paired at
    random, and what only one of a pair has is shared out anew between the two, each way equally likely. The uniform
    distribution over the graphs of those degrees is the chain's only stationary one (Carstens, Hamann, Meyer, Penschuck,
    Tran, Wagner 2018, https://arxiv.org/abs/1804.08487); it is run for 10 rounds and 4 more each time the smaller side
    doubles, so it comes close to it and is not exactly it.
    """
    if not 0 <= edges <= rows * columns:
        raise ValueError(f"{edges} edges do not fit {rows} rows and {columns} columns")
    if rows > columns:
        return biregular(columns, rows, edges, rng).T
    if 2 * edges > rows * columns:
        # Of a uniform graph the complement is uniform, and has fewer edges to trade.
        return ~biregular(rows, columns, rows * columns - edges, rng)
    degrees = np.full(rows, edges // rows)
    degrees[rng.permutation(rows)[: edges % rows]] += 1
    # Columns in turn: no row meets one twice, and every column is met as often as another, or once more.
    row = np.repeat(np.arange(rows), degrees)
    column = rng.permutation(columns)[np.arange(edges) % columns]
    for _ in range(LEAST_ROUNDS + ROUNDS_A_DOUBLING * ceil(log2(rows))):
        trade(row, column, (rows, columns), rng)
    matrix = np.zeros((rows, columns), dtype=np.bool_)
    matrix[row, column] = True
    return matrix


def trade(row: np.ndarray, column: np.ndarray, shape: tuple[int, int], rng: Rng) -> None:
    """One global curveball trade: changes `row`, whose edges are (row[k], column[k]), all different.

    Every row and every column keeps its degree. With an odd number of rows one of them sits out.
    """
    rows, columns = shape
    pair = np.empty(rows, dtype=np.int64)
    pair[rng.permutation(rows)] = np.arange(rows) // 2
    key = pair[row] * columns + column
    by_key = np.argsort(key)
    twice = np.diff(key[by_key]) == 0  # a column that both rows of a pair have
    free = np.ones(len(key), dtype=np.bool_)
    free[1:] &= ~twice
    free[:-1] &= ~twice
    at = by_key[free]  # pair after pair
    shuffled = np.lexsort((rng.random(len(at)), pair[row[at]]))
    row[at[shuffled]] = row[at]
