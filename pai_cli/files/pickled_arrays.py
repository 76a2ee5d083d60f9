"""NumPy arrays inside a pickle, read without NumPy's own pickling code.

A pickle names what rebuilds an array (`numpy._core.multiarray._reconstruct`, `numpy.dtype` ...). Here those names lead to
inert stand-ins that only note what the stream says of an array; its bytes become one, checked, after the unpickler has
finished. So no function that the file names is ever called.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

DEEP = 4  # levels of containers in which arrays are looked for; masks stand at the first or the second
ITEM_TYPES = re.compile(r"b1|[iuf][1248]")


class PickledArray:
    """What a pickle says of one array."""

    _state: Any = None  # a pickle may make one without `__init__`

    def __setstate__(self, state: object) -> None:
        self._state = state

    @property
    def nbytes(self) -> int:
        """Bytes that the array will have, which are those that the pickle gives it."""
        data = self._state[4] if isinstance(self._state, tuple) and len(self._state) > 4 else b""
        return len(data) if isinstance(data, bytes) else 0

    def array(self) -> Any:
        """The array. Raises `ValueError` for anything that is no plain array of numbers or booleans."""
        import numpy as np

        try:
            _, shape, item, by_columns, data = self._state
        except (TypeError, ValueError) as e:
            raise ValueError("it holds a NumPy array that makes no sense") from e
        if not isinstance(item, PickledType):
            raise ValueError("it holds a NumPy array that makes no sense")
        code = item.code()
        if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError("it holds a NumPy array whose shape makes no sense")
        dtype = np.dtype(code)
        if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"it holds a NumPy array of {code} whose bytes do not fit its shape {shape}")
        flat = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
        return flat.reshape(shape, order="F" if by_columns else "C")


class PickledType:
    """What a pickle says of an array's dtype."""

    _kind: object = ""
    _order: object = "="

    def __init__(self, kind: object = "", *_: object):
        self._kind = kind

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1:
            self._order = state[1]

    def code(self) -> str:
        """`<f4` and the like. Raises `ValueError` for a type of anything but booleans and numbers."""
        if not isinstance(self._kind, str) or not ITEM_TYPES.fullmatch(self._kind):
            raise ValueError(f"it holds a NumPy array of type {self._kind!r}")
        return (self._order if self._order in ("<", ">") else "=") + self._kind


def _rebuilt(*_: object) -> PickledArray:
    return PickledArray()


def _as_bytes(text: object, encoding: object = "") -> bytes:
    """How protocol 2 spells bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("its bytes are spelled in an unknown way")
    return text.encode("latin1")


STAND_INS: tuple[tuple[object, str], ...] = (
    (_rebuilt, "numpy.core.multiarray._reconstruct"),
    (_rebuilt, "numpy._core.multiarray._reconstruct"),  # as NumPy 2 spells it
    (PickledArray, "numpy.ndarray"),
    (PickledType, "numpy.dtype"),
    (_as_bytes, "_codecs.encode"),
)


@contextmanager
def stand_ins() -> Iterator[None]:
    """Let PyTorch's restricted unpickler take the stand-ins for what the stream names."""
    import torch

    with torch.serialization.safe_globals(list(STAND_INS)):  # type: ignore[arg-type]
        yield


def with_tensors(value: object, depth: int = DEEP) -> object:
    """The same dicts, lists and tuples with tensors in the place of arrays, also of NumPy's own."""
    import numpy as np
    import torch

    if isinstance(value, PickledArray):
        value = value.array()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
    if depth == 0:
        return value
    if isinstance(value, Mapping):
        return {key: with_tensors(inner, depth - 1) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(with_tensors(inner, depth - 1) for inner in value)  # type: ignore[attr-defined,call-arg]
    return value
