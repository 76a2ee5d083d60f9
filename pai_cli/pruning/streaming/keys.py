"""Whole numbers in the order of scores, so that selection compares and counts bits as they are stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.unsignedinteger[Any]]
"""Flat; the larger a key, the better the reason to keep its weight."""


@dataclass(frozen=True)
class Kind:
    """How a floating type is stored: unsigned bits, those of the magnitude, and infinity's. Beyond it lie NaNs.

    Without their sign the bits of finite numbers are in the order of their absolute values; the zeros are one.
    """

    bits: np.dtype[np.unsignedinteger[Any]]
    magnitude: int
    infinity: int


KINDS = {
    "F16": Kind(np.dtype("<u2"), 0x7FFF, 0x7C00),
    "BF16": Kind(np.dtype("<u2"), 0x7FFF, 0x7F80),
    "F32": Kind(np.dtype("<u4"), 0x7FFFFFFF, 0x7F800000),
    "F64": Kind(np.dtype("<u8"), 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000),
}
"""By safetensors' spelling: the floating types that a checkpoint's weights may have."""


def common_dtype(dtypes: Iterable[str]) -> str:
    """The dtype in which weights of all these can be compared: each of their values is exact in it."""
    there = set(dtypes)
    if len(there) == 1:
        return there.pop()
    return "F64" if "F64" in there else "F32"


def magnitudes(raw: NDArray[np.uint8], dtype: str) -> Keys:
    """The bits of the absolute values of stored weights, as a new array."""
    kind = KINDS[dtype]
    return np.bitwise_and(raw.view(kind.bits), kind.bits.type(kind.magnitude))


def widened(keys: Keys, dtype: str, common: str) -> Keys:
    """Magnitudes of one dtype as those of `common`, in which all of its values are exact."""
    if dtype == common:
        return keys
    if dtype == "BF16":
        values: NDArray[np.floating[Any]] = (keys.astype("<u4") << 16).view("<f4")
    else:
        values = keys.view(KINDS[dtype].bits.str.replace("u", "f"))
    wide: Keys = values.astype("<f4" if common == "F32" else "<f8").view(KINDS[common].bits)
    return wide


def first_not_finite(magnitude: Keys, dtype: str) -> int | None:
    """The index of the first infinity or NaN; None where there is none."""
    kind = KINDS[dtype]
    if not magnitude.size or magnitude.max() < kind.infinity:
        return None
    return int(np.argmax(magnitude >= kind.bits.type(kind.infinity)))
