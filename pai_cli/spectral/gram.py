"""Gram matrices on any device, of the smaller side."""

from __future__ import annotations

from array_api_compat import array_namespace, is_torch_array

from pai_cli.spectral.graph import Array


def smaller_gram(matrix: Array) -> Array:
    """`X X^T` or `X^T X`, whichever is the smaller; of a float32 matrix of 0 and 1 it is exact, and float32.

    Both factors are one array, so that the product is symmetric and BLAS does half the work.
    """
    xp = array_namespace(matrix)
    rows = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    if is_torch_array(matrix) and matrix.is_cuda and matrix.dtype == xp.float32:
        return _on_matrix_units(rows)
    return rows @ rows.T


def _on_matrix_units(rows: Array) -> Array:
    """0 and 1 are exact in half precision, and sums of products are taken in float32: integers below 2^24 are exact.

    Some products of half matrices may be split and their parts added in half precision, which would not be. So it is
    checked: the row sums of a Gram matrix are known another way, and where they differ float32 takes over.
    """
    half = rows.half()
    try:
        gram = half.mm(half.T, out_dtype=rows.dtype)
    except (TypeError, RuntimeError):  # before torch 2.8, or a device without it
        return rows @ rows.T
    exact = rows.double() @ rows.double().sum(dim=0)
    if bool((gram.double().sum(dim=1) == exact).all()):
        return gram
    return rows @ rows.T
