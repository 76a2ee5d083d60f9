"""Reading pickles of plain data: dicts, lists, numbers, text, bytes and number arrays, and nothing else.

No class or function that a file names is imported or called. The few that arrays are pickled with are acted out by
stand-ins here, which make arrays with `numpy.frombuffer` only; any other name is refused. numpy's own functions would be
too trusting: what they are given decides what they allocate and how they read it.
"""

from __future__ import annotations

import mmap
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.errors import DataError
from pai_cli.files.budget import BudgetError
from pai_cli.files.messages import one_line
from pai_cli.files.pickle_scan import scan

NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")
"""The types of number that arrays may have, as `numpy.dtype` calls them."""


def read_plain(path: Path) -> dict[str, object]:
    """The dict that a pickle of Python 2 or 3 holds, its keys as text.

    Raises `DataError` when it is damaged, holds anything else, or names code; `OSError` when it cannot be opened.
    """
    with path.open("rb") as stream:
        try:
            if path.stat().st_size:
                with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    scan(data)
            loaded = _Reader(stream, encoding="bytes").load()
            if not isinstance(loaded, Mapping):
                raise DataError(f"{path}: a pickled {type(loaded).__name__}, not a dict of arrays and lists")
            return {_text(key): value.made() if isinstance(value, _Array) else value for key, value in loaded.items()}
        except _RefusedError as e:
            raise DataError(f"{path}: not read: its pickle asks for {e}, and plain data needs no code") from e
        except BudgetError as e:
            raise DataError(f"{path}: {e}; plain data needs nothing of the kind") from e
        except DataError:
            raise
        except Exception as e:  # a damaged stream makes the unpickler, or numpy, stumble over anything
            raise DataError(f"{path}: truncated or damaged ({one_line(e)}); copy it again") from e


class _RefusedError(Exception):
    """The pickle names something that plain data does not need; the text is that name."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise _RefusedError(f"{module}.{name}")
        return _Named(known)


class _Named:
    """What a pickle has in its hands when it names a known function: it may call it, and not change it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]):
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise ValueError("a function is given a state")


class _Type:
    """A number type: called with its code ("u1"), then given a state that has the byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *_: object):
        self.code, self.order = _text(code), "|"
        if self.code not in NUMBERS:
            raise ValueError(f"arrays of {self.code[:20]!r}")

    def __setstate__(self, state: tuple[object, ...]) -> None:
        order = _text(state[1])
        if order not in ("|", "<", ">", "="):
            raise ValueError("no such byte order")
        self.order = order

    def made(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Array:
    """An array that is made empty and then given (version, shape, type, whether in Fortran's order, bytes)."""

    __slots__ = ("_made",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, raw = state
        self._made = _frombuffer(raw, kind, shape, "F" if fortran else "C")

    def made(self) -> NDArray[Any]:
        return self._made


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _frombuffer(raw: object, kind: object, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    if not isinstance(raw, bytes | bytearray) or not isinstance(kind, _Type):
        raise ValueError("an array that is not of bytes")
    return np.frombuffer(raw, dtype=kind.made()).reshape(shape, order=order)


def _scalar(kind: object, raw: object) -> object:
    return _frombuffer(raw, kind, (1,), "C")[0].item()


def _ndarray(*_: object) -> object:
    raise ValueError("an array is made the wrong way")  # it is named, as an argument, and never called


def _no_bytes() -> bytes:
    """How Python 3 writes empty bytes for Python 2."""
    return b""


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if _text(encoding) != "latin1":
        raise ValueError("an unknown encoding of bytes")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
