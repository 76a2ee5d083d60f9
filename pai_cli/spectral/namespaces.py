"""Which functions work on an array. NumPy's own where they are enough: the wrapper around them imports all of NumPy."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

OWN = hasattr(np, "astype")  # from 2.1 on, NumPy has the array API's names


def array_namespace(array: Any) -> Any:
    """The array API's functions for an array of NumPy's, of torch, or of another library."""
    return np if OWN and type(array) is np.ndarray else array_api_compat.array_namespace(array)
