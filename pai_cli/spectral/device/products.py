"""Gram matrices of 0/1 rows on a device: exact integers, by the quickest product that the device has.

0 and 1 are exact in half precision and in int8, and the sums of their products are taken in float32 or int32: integers below
2^24 are exact there. What is summed in another way would show: the entries of a Gram matrix add up to the sum of the squared
degrees of the other side, and whoever reads the table of results checks that (`plan`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Product(StrEnum):
    """Which product forms Gram matrices of a mask.

    HALF: `torch.mm` and `torch.bmm` with `out_dtype`, on the matrix units; torch has them from 2.8, for CUDA and XPU. INT8:
    `torch._int_mm`, which takes no batches: those go in float32. FLOAT32: where there is neither.
    """

    HALF = "half"
    INT8 = "int8"
    FLOAT32 = "float32"


@cache
def product_of(kind: str) -> Product:
    """The product of a kind of device, such as "cuda"; found once, by a small product of each sort."""
    import torch

    ones = torch.ones((32, 32), dtype=torch.int8, device=kind)
    half = ones.half()
    if hasattr(torch.ops.aten.mm, "dtype") and _runs(lambda: torch.mm(half, half, out_dtype=torch.float32)):
        return Product.HALF
    if hasattr(torch, "_int_mm") and _runs(lambda: torch._int_mm(ones, ones)):
        return Product.INT8
    return Product.FLOAT32


def _runs(product: Callable[[], object]) -> bool:
    """Whether the device has it. Only what torch raises of an operator without a kernel is taken for a no."""
    try:
        product()
    except NotImplementedError:
        return False
    return True


def gram(rows: torch.Tensor) -> torch.Tensor:
    """X X^T of one matrix (n, k) of 0 and 1 in int8: (n, n), float32 or int32."""
    import torch

    product = product_of(rows.device.type)
    if product is Product.INT8:
        return torch._int_mm(rows, rows.mT)
    if product is Product.HALF:
        half = rows.half()
        return torch.mm(half, half.mT, out_dtype=torch.float32)
    wide = rows.float()
    return torch.mm(wide, wide.mT)


def grams(rows: torch.Tensor) -> torch.Tensor:
    """X X^T of each matrix of a batch (b, n, k) of 0 and 1 in int8: (b, n, n), float32."""
    import torch

    if product_of(rows.device.type) is Product.HALF:
        half = rows.half()
        return torch.bmm(half, half.mT, out_dtype=torch.float32)
    wide = rows.float()
    return torch.bmm(wide, wide.mT)
