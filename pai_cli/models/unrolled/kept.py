"""The kept weights of a layer as a matrix, sparse where few are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.models.layers import PrunableLayer

Flags = NDArray[np.bool_]
Numbers = NDArray[Any]

SPARSE = 3  # one weight kept of so many, or fewer: then the products of those alone are quicker than BLAS is with all

SMALL = 2**16  # weights of a layer that BLAS multiplies sooner than a sparse matrix is made


@dataclass(frozen=True, eq=False)
class Kept:
    """The kept weights of a layer, all where `mask` is None.

    The matrix has a row for each place along the weight's first dimension; its columns are the second dimension, of all
    groups, and the kernel's positions.
    """

    layer: PrunableLayer
    mask: Flags | None

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        first, *others = self.layer.shape
        return first, math.prod(others) * self.layer.layout.groups

    @cached_property
    def flags(self) -> Flags:
        """A row each, and the columns of its own group."""
        mask = np.ones(self.layer.shape, np.bool_) if self.mask is None else self.mask
        return np.ascontiguousarray(mask).reshape(self.shape[0], -1)

    @cached_property
    def count(self) -> int:
        """How many are kept."""
        return math.prod(self.layer.shape) if self.mask is None else int(np.count_nonzero(self.mask))

    @property
    def whole(self) -> bool:
        """Whether all are, and all rows are alike."""
        return self.count == math.prod(self.layer.shape) and self.layer.layout.groups == 1

    @property
    def sparse(self) -> bool:
        """Whether the matrix is."""
        size = math.prod(self.shape)
        return (self.count * SPARSE < size and size > SMALL) or self.layer.layout.groups > 1

    @cached_property
    def flat(self) -> NDArray[np.int64]:
        """Where in the weight, its elements one after the other, the kept ones are."""
        return np.flatnonzero(self.flags)

    @cached_property
    def pointers(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Of a sparse matrix: where each row begins among the kept weights, and their columns."""
        rows, width = self.flags.shape
        begins = np.searchsorted(self.flat, np.arange(rows + 1) * width)
        row = np.repeat(np.arange(rows), np.diff(begins))
        columns = self.flat - row * width + self.first(row)
        kind = np.int32 if max(self.count, self.shape[1]) < 2**31 else np.int64  # a sparse product's are of one kind
        return begins.astype(kind), columns.astype(kind)

    def first(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first column of these rows' groups."""
        layout = self.layer.layout
        each = self.shape[0] // layout.groups
        return rows // each * (self.shape[1] // layout.groups)

    @cached_property
    def rows(self) -> Flags:
        """Which rows have a kept weight."""
        return np.diff(self.pointers[0]) > 0 if self.sparse else any_of(self.flags, 1)

    @cached_property
    def columns(self) -> Flags:
        """Which columns have one."""
        if not self.sparse:
            return any_of(self.flags, 0)
        found = np.zeros(self.shape[1], np.bool_)
        found[self.pointers[1]] = True
        return found

    def values(self, weight: NDArray[Any]) -> NDArray[Any]:
        """The kept weights' values, in order."""
        flat = weight.reshape(-1)
        return flat[self.flat] if self.sparse else flat[self.flags.reshape(-1)]

    @property
    def ones(self) -> Matrix:
        """With a one for each that is kept; a large dense one is made anew each time, since all layers' would not fit."""
        return self._light if self.whole or self.sparse or self.flags.size <= SMALL else self.matrix(None)

    @cached_property
    def _light(self) -> Matrix:
        if self.whole:
            return Matrix(np.ones((1, self.shape[1])), self.shape[0])
        return self.matrix(np.ones(self.count) if self.sparse else None)

    def matrix(self, values: Numbers | None) -> Matrix:
        """With these numbers, as `values` gives them, at the kept weights; or ones."""
        if self.sparse:
            from scipy.sparse import csr_array  # as long to import as a small network takes to measure

            begins, columns = self.pointers
            assert values is not None
            return Matrix(csr_array((values, columns, begins), shape=self.shape), self.shape[0])
        dense = self.flags.astype(np.float64)
        if values is not None:
            dense[self.flags] = values
        return Matrix(dense, self.shape[0])


def any_of(flags: Flags, dim: int) -> Flags:
    """Whether there is any along a dimension."""
    found: Flags = np.any(flags, axis=dim)
    return found


@dataclass(frozen=True)
class Matrix:
    """A matrix of so many `rows`: of one array, or of one row that is repeated."""

    array: Any
    rows: int

    def times(self, columns: Numbers) -> Numbers:
        """Its product with a matrix."""
        found = self.array @ columns
        return found if len(found) == self.rows else np.broadcast_to(found, (self.rows, found.shape[1]))

    def turned_times(self, rows: Numbers) -> Numbers:
        """The product of its transpose with a matrix."""
        if self.array.shape[0] == 1:
            rows = rows.sum(0, keepdims=True)
        found: Numbers = self.array.T @ rows
        return found
