"""Reading safetensors files tensor by tensor, without torch, every fault told in one line.

The safetensors library checks the header (its length, the offsets, dtypes against shapes, that the file is neither
longer nor shorter); this module adds what NumPy cannot hold (bfloat16) and words for a person.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from io import IOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.errors import NotFiniteError, PaiError
from pai_cli.files.first_bytes import check_readable, first_bytes, looks_like
from pai_cli.printable import first_line, reason_of

if TYPE_CHECKING:
    import numpy as np

BFLOAT16 = "BF16"

INSTEAD = "give a safetensors file, or one that torch.save wrote"


@dataclass(frozen=True)
class Span:
    """Where a tensor's bytes stand: `size` bytes of the file from `begin` on, little-endian, row by row.

    `dtype` is safetensors' own spelling. `stamp`: what tells the file from one that took its place since.
    """

    path: Path
    begin: int
    size: int
    dtype: str
    stamp: tuple[int, ...] = ()


def stamp_of(file: IOBase) -> tuple[int, ...]:
    """What changes when an open file is written to, and differs from that of another file."""
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def finite(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """The array. Raises `NotFiniteError` for a NaN or infinity, which it locates by its index in the flattened array."""
    import numpy as np

    there = np.isfinite(array).reshape(-1)
    if not there.all():
        at = int(np.argmin(there))
        raise not_finite(path, name, float(array.reshape(-1)[at]), at)
    return array


def not_finite(path: Path, name: str, value: float, at: int) -> NotFiniteError:
    """The fault of a tensor that holds a NaN or infinity at this flat index."""
    return NotFiniteError(
        f"{path}: tensor {name!r} holds {value} at index {at}; take a checkpoint from before the weights diverged"
    )


class TensorFile:
    """One safetensors file, opened and checked; tensors are read when asked for.

    Raises `error` (a `PaiError` class) with one line when the file is missing, empty, truncated or no safetensors file.
    """

    def __init__(self, path: Path, error: type[PaiError]):
        self.path = path
        self._error = error
        check_readable(path, error)
        self._handle = self._open()
        self.metadata: dict[str, str] = dict(self._handle.metadata() or {})
        self.names: tuple[str, ...] = tuple(self._handle.keys())

    def _open(self) -> Any:
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(os.fspath(self.path), framework="numpy")
        except SafetensorError as e:
            raise self._error(f"{self.path}: {_plain_reason(self.path, str(e))}") from e
        except OSError as e:
            raise self._error(f"{self.path}: cannot be read: {reason_of(e)}") from e

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor, in file order."""
        return {name: tuple(self._handle.get_slice(name).get_shape()) for name in self.names}

    def dtype(self, name: str) -> str:
        """The tensor's dtype in safetensors' own spelling (`F32`, `BOOL`, `U8`, `BF16`)."""
        return str(self._handle.get_slice(name).get_dtype())

    @cached_property
    def _header(self) -> tuple[int, dict[str, Any], tuple[int, ...]]:
        """Where the tensors' bytes begin, the header's entries, and the file's stamp."""
        with self.path.open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
            return 8 + length, json.loads(f.read(length)), stamp_of(f)

    def span(self, name: str) -> Span:
        """Where the tensor's bytes stand in the file."""
        start, header, stamp = self._header
        begin, end = header[name]["data_offsets"]
        return Span(self.path, start + begin, end - begin, self.dtype(name), stamp)

    def array(self, name: str) -> np.ndarray:
        """One tensor as a NumPy array of its own dtype; bfloat16 becomes float32 (exact)."""
        if self.dtype(name) == BFLOAT16:
            return self._bfloat16(name)
        try:
            array: np.ndarray = self._handle.get_tensor(name)
        except Exception as e:  # the library raises several kinds for a dtype NumPy has no name for
            raise self._error(
                f"{self.path}: tensor {name!r} has dtype {self.dtype(name)}, which cannot be read; "
                "convert it to float32"
            ) from e
        return array

    def part(self, name: str, number: int) -> np.ndarray:
        """`array(name)[number]`, of which no more than that is read."""
        if self.dtype(name) == BFLOAT16:
            return self._bfloat16(name, number)
        try:
            array: np.ndarray = self._handle.get_slice(name)[number]
        except Exception:  # as `array` tells it
            array = self.array(name)[number]
        return array

    def _bfloat16(self, name: str, number: int | None = None) -> np.ndarray:
        import numpy as np

        span, shape = self.span(name), self.shapes[name]
        begin, size = span.begin, span.size
        if number is not None:
            size //= shape[0]
            begin, shape = begin + number * size, shape[1:]
        with self.path.open("rb") as f:
            f.seek(begin)
            halves = np.frombuffer(f.read(size), dtype="<u2")
        wide: np.ndarray = (halves.astype(np.uint32) << 16).view(np.float32)
        return wide.reshape(shape)


def _plain_reason(path: Path, message: str) -> str:
    """What is wrong with a file that the safetensors library refused."""
    size, start = path.stat().st_size, first_bytes(path)
    length = int.from_bytes(start[:8], "little")
    text = message.lower()
    if start[8:9] != b"{":
        short = f" ({size} bytes; its header alone takes 8)" if size < 8 else ""
        return f"not a safetensors file{short}; it looks like {looks_like(start)}: {INSTEAD}"
    if "invalid header length" in text or "header too large" in text:
        return f"truncated: its header says {length:,} bytes, the file has {size:,}; copy it again"
    if "incomplete" in text or "not fully covered" in text:
        return f"truncated or with bytes to spare: {size:,} bytes do not match what its header lists; copy it again"
    told = first_line(message.removeprefix("Error while deserializing header: "))
    return f"damaged safetensors file ({told}); copy it again"
