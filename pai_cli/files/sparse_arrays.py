"""Sparse tensors of torch, and matrices that SciPy saved, made dense.

Neither library checks the indices that it reads, so nothing that they say of themselves is believed here. Both add up the
values that stand in one place; a mask that names a weight twice would be no mask, and so that is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]

Shape = tuple[int, ...]

SCIPY = ("coo", "csr", "csc", "bsr", "dia")
"""The formats that `scipy.sparse.save_npz` writes."""

BY_COLUMNS = ("csc", "bsc")


class SparseError(ValueError):
    """A sparse array whose parts do not fit each other or its shape, or that has two values in one place."""


def is_sparse(tensor: object) -> bool:
    """Whether it is a tensor of torch that keeps the places of its values, in whatever layout."""
    return str(getattr(tensor, "layout", "")).startswith("torch.sparse")


def parts_of(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a sparse tensor consists of, under SciPy's names: `data`, and its `coords`, or `indices` and `indptr`."""
    kind = kind_of(tensor)
    if kind == "coo":
        return {"coords": tensor._indices(), "data": tensor._values()}
    by_columns = kind in BY_COLUMNS
    return {
        "indptr": tensor.ccol_indices() if by_columns else tensor.crow_indices(),
        "indices": tensor.row_indices() if by_columns else tensor.col_indices(),
        "data": tensor.values(),
    }


def dense_of(tensor: torch.Tensor) -> Array:
    """A sparse tensor as an array, of bfloat16 as float32. Raises `SparseError`."""
    parts = parts_of(tensor)
    if str(parts["data"].dtype) == "torch.bfloat16":
        parts["data"] = parts["data"].float()
    arrays = {name: part.detach().numpy() for name, part in parts.items()}
    return dense(kind_of(tensor), arrays, tuple(tensor.shape))


def dense(kind: str, parts: Mapping[str, Array], shape: Shape) -> Array:
    """The array of `shape` that the parts are of, as SciPy names them. Raises `SparseError`."""
    import numpy as np

    data = parts["data"]
    if kind == "coo":
        places = parts["coords"] if "coords" in parts else np.stack([parts["row"], parts["col"]])
        return _scattered(places, data, shape)
    _check_blocks(kind, (1, 1), shape)
    if kind == "dia":
        return _scattered(*_off_diagonals(parts["offsets"], data, shape), shape)
    data = data if kind in ("bsr", "bsc") else data[..., None, None]
    blocks = data.shape[1:]
    _check_blocks(kind, blocks, shape)
    grid = shape[0] // blocks[0], shape[1] // blocks[1]
    order = (1, 0) if kind in BY_COLUMNS else (0, 1)
    inner = parts["indices"]
    outer = _unpacked(parts["indptr"], grid[order[0]], inner.size)
    places = np.stack([outer, inner] if order == (0, 1) else [inner, outer])
    found = _scattered(places, data, (*grid, *blocks))
    return found.transpose(0, 2, 1, 3).reshape(shape)


def placed(kind: str, parts: Mapping[str, Array], shape: Shape) -> tuple[Array, Array]:
    """Places (dimensions, n) and values (n) of a matrix whose parts are named as in `dense`, which stays sparse.

    Places are not compared with the shape. Raises `SparseError`.
    """
    import numpy as np

    data = parts["data"]
    if kind == "coo":
        places = parts["coords"] if "coords" in parts else np.stack([parts["row"], parts["col"]])
    elif kind == "dia":
        places, data = _off_diagonals(parts["offsets"], data, shape)
    else:
        places, data = _of_pointers(kind, parts, shape)
    if places.ndim != 2 or places.dtype.kind not in "iu" or data.shape != places.shape[1:]:
        raise SparseError(f"has indices of shape {places.shape} for values of shape {data.shape}")
    return places, data


def _of_pointers(kind: str, parts: Mapping[str, Array], shape: Shape) -> tuple[Array, Array]:
    import numpy as np

    data, inner = parts["data"], parts["indices"]
    blocks = data.shape[1:] if kind in ("bsr", "bsc") else (1, 1)
    _check_blocks(kind, blocks, shape)
    by_columns = kind in BY_COLUMNS
    outer = _unpacked(parts["indptr"], shape[by_columns] // blocks[by_columns], inner.size)
    if data.shape[:1] != inner.shape or inner.dtype.kind not in "iu":
        raise SparseError(f"has indices of shape {inner.shape} for values of shape {data.shape}")
    rows, columns = (inner, outer) if by_columns else (outer, inner)
    if blocks == (1, 1):
        return np.stack([rows, columns]), data.reshape(-1)
    within = np.indices(blocks).reshape(2, 1, -1)
    at = np.stack([rows, columns])[:, :, None].astype(np.int64) * np.array(blocks)[:, None, None] + within
    return at.reshape(2, -1), data.reshape(-1)


def _check_blocks(kind: str, blocks: Shape, shape: Shape) -> None:
    if len(shape) != 2:
        raise SparseError(f"has {len(shape)} dimensions, and {kind} is read of two")
    if len(blocks) != 2 or 0 in blocks or shape[0] % blocks[0] or shape[1] % blocks[1]:
        raise SparseError(f"has blocks of {blocks}, which do not tile {shape}")


def kind_of(tensor: torch.Tensor) -> str:
    """The layout of a sparse tensor, as torch calls it: `coo`, `csr`."""
    return str(tensor.layout).removeprefix("torch.sparse_")


def _unpacked(pointers: Array, count: int, number: int) -> Array:
    """The row of each of `number` values, from where each of `count` rows begins."""
    import numpy as np

    if pointers.shape != (count + 1,) or pointers.dtype.kind not in "iu":
        raise SparseError(f"has pointers of shape {pointers.shape} for {count:,} rows or columns")
    begins = pointers.astype(np.int64)
    lengths: Array = begins[1:] - begins[:-1]
    if begins[0] != 0 or begins[-1] != number or (lengths < 0).any():
        raise SparseError(f"has pointers that do not run from 0 to its {number:,} indices")
    return np.repeat(np.arange(count), lengths)


def _off_diagonals(offsets: Array, data: Array, shape: Shape) -> tuple[Array, Array]:
    """Places and values of SciPy's diagonals: `data[k, j]` stands in column j, `offsets[k]` to the right of the diagonal."""
    import numpy as np

    if offsets.dtype.kind not in "iu" or data.ndim != 2 or offsets.shape != (len(data),):
        raise SparseError(f"has diagonals of shape {data.shape} at {offsets.size:,} offsets")
    columns = np.broadcast_to(np.arange(data.shape[1]), data.shape)
    rows = columns - offsets.astype(np.int64)[:, None]
    inside = (rows >= 0) & (rows < shape[0]) & (columns < shape[1])
    return np.stack([rows[inside], columns[inside]]), data[inside]


def _scattered(places: Array, values: Array, shape: Shape) -> Array:
    """Values (n, *rest) at places (d, n) of an array of `shape`, whose last dimensions are `rest`."""
    import numpy as np

    if places.ndim != 2 or places.dtype.kind not in "iu" or values.shape[:1] != places.shape[1:]:
        raise SparseError(f"has indices of shape {places.shape} for values of shape {values.shape}")
    sides = shape[: len(places)]
    if len(sides) != len(places) or shape[len(places) :] != values.shape[1:]:
        raise SparseError(f"has indices of {len(places)} dimensions and values of shape {values.shape} for {shape}")
    for row, side in zip(places, sides, strict=True):
        if row.size and (row.min() < 0 or row.max() >= side):
            raise SparseError(f"has an index outside its shape {shape}")
    flat = np.ravel_multi_index(tuple(places.astype(np.int64)), sides) if sides else np.zeros(len(values), np.int64)
    _refuse_twice(flat, sides)
    found = np.zeros((math.prod(sides), *values.shape[1:]), values.dtype)
    found[flat] = values
    return found.reshape(shape)


def _refuse_twice(flat: Array, sides: Shape) -> None:
    import numpy as np

    ordered = np.sort(flat)
    again = np.flatnonzero(ordered[1:] == ordered[:-1])
    if again.size:
        at = tuple(int(one) for one in np.unravel_index(ordered[again[0]], sides)) if sides else ()
        raise SparseError(f"has several values at index {at}, which would be added up")
