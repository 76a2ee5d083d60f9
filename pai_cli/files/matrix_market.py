"""Matrix Market files: the header is checked here, before SciPy believes what it says and makes room for it.

Boisvert, Pozo, Remington, "The Matrix Market exchange formats", NIST IR 5935, 1996.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pai_cli.errors import MaskError
from pai_cli.printable import reason_of

if TYPE_CHECKING:
    import numpy as np

FORMATS, FIELDS = ("coordinate", "array"), ("real", "double", "integer", "unsigned-integer", "pattern", "complex")

SYMMETRIES = {
    "general": "",
    "symmetric": "symmetric: an entry beside the diagonal stands for two",
    "skew-symmetric": "skew-symmetric: an entry stands for two, of opposite signs",
}

PARTS: dict[str, Callable[[int, int], int]] = {
    "general": lambda rows, columns: rows * columns,
    "symmetric": lambda rows, _: rows * (rows + 1) // 2,
    "skew-symmetric": lambda rows, _: rows * (rows - 1) // 2,
}
"""How many numbers of a whole matrix stand in its file: of a symmetric one those up to the diagonal."""

LONGEST_HEAD = 2**20  # bytes of banner and comments

SIZES = re.compile(rb"[ \t]*(\d{1,18})[ \t]+(\d{1,18})(?:[ \t]+(\d{1,18}))?[ \t\r]*\n")


def read_market(path: Path) -> tuple[np.ndarray | Any, str]:
    """The matrix, an array or one of SciPy's sparse ones, and what a person should know of it. Raises `MaskError`."""
    with path.open("rb") as stream:
        head = stream.read(LONGEST_HEAD)
    banner = head.partition(b"\n")[0].decode("latin-1").lower().split()
    whole, symmetry = _checked(path, banner)
    rest = re.sub(rb"\A(?:%[^\n]*\n|[ \t\r]*\n)*", b"", head)
    sizes = SIZES.match(rest)
    if sizes is None or (sizes[3] is None) is not whole:
        raise MaskError(f"{path}: has no line of sizes after its banner and comments (in a megabyte); write it again")
    rows, columns = int(sizes[1]), int(sizes[2])
    if symmetry != "general" and rows != columns:
        raise MaskError(
            f"{path}: is {symmetry}, and {rows:,} x {columns:,}: no such matrix is; write it again as general"
        )
    numbers = PARTS[symmetry](rows, columns) if whole else int(sizes[3])
    least = 2 if whole or banner[3] != "pattern" else 4  # bytes of a line
    if numbers * least > path.stat().st_size:
        raise MaskError(
            f"{path}: tells of {numbers:,} numbers, more than its {path.stat().st_size:,} bytes hold; copy it again"
        )
    try:
        from scipy.io import mmread

        found = mmread(path)
    except (OSError, MemoryError) as e:
        raise MaskError(f"{path}: cannot be read: {reason_of(e)}") from e
    except (ValueError, OverflowError) as e:
        per_line = 1 if whole else 2 if banner[3] == "pattern" else 3
        raise MaskError(f"{path}: {_fault(path, per_line, numbers, (rows, columns))}") from e
    _check_taken(path, len(head) - len(rest) + sizes.end(), banner, numbers)
    return found, SYMMETRIES[symmetry]


def _check_taken(path: Path, begin: int, banner: list[str], numbers: int) -> None:
    """Refuse what SciPy takes for something else: missing numbers of a symmetric array for 0, fractions for whole numbers.

    `begin`: where entries begin. Raises `MaskError`.
    """
    counted, integer = banner[2] == "array" and banner[4] != "general", banner[3].endswith("integer")
    if not counted and not integer:
        return
    with path.open("rb") as stream:
        stream.seek(begin)
        entries = stream.read()
    if counted and (there := len(entries.split())) != numbers:
        raise MaskError(
            f"{path}: has {there:,} entries, and a {banner[4]} array of its size {numbers:,}; copy it again"
        )
    if integer and (found := re.search(rb"[.eE]", entries)):
        number = path.read_bytes()[: begin + found.start()].count(b"\n") + 1
        raise MaskError(f"{path}: line {number} is no whole number, as its banner says; write real in the banner")


def _fault(path: Path, per_line: int, numbers: int, sizes: tuple[int, int]) -> str:
    """Which of the lines after the sizes, `numbers` of `per_line` words each, is wrong, and what helps."""
    count = -1  # the line of sizes is the first that is no comment
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            words = line.split()
            if not words or line.startswith(b"%"):
                continue
            count += 1
            if count > numbers:
                return f"line {number} comes after all {numbers:,} entries that its sizes tell of; write it again"
            if count and (told := _wrong(words, per_line, sizes)):
                return f"line {number} {told}; write it again"
    if count < numbers:
        return f"ends after {count:,} of {numbers:,} entries; copy it again"
    return "is no Matrix Market file that SciPy can read; write it again, as with scipy.io.mmwrite"


def _wrong(words: list[bytes], per_line: int, sizes: tuple[int, int]) -> str:
    """What is wrong with the words of an entry; empty where nothing is."""
    indices = words[:2] if per_line > 1 else []
    try:
        values = [float(word) for word in words[len(indices) :]]
        places = [int(word) for word in indices]
    except ValueError:
        values, places = [], []
    if len(values) + len(places) != per_line or len(words) != per_line:
        return (
            f"is not {'a number' if per_line == 1 else 'row and column' if per_line == 2 else 'row, column and number'}"
        )
    outside = any(not 1 <= place <= size for place, size in zip(places, sizes, strict=False))
    return f"is at ({places[0]}, {places[1]}), outside {sizes[0]:,} x {sizes[1]:,}" if outside else ""


def _checked(path: Path, banner: list[str]) -> tuple[bool, str]:
    """Whether every entry is there, and the symmetry."""
    if len(banner) != 5 or banner[1] != "matrix" or banner[2] not in FORMATS or banner[3] not in FIELDS:
        raise MaskError(
            f"{path}: its first line is no banner of a matrix: %%MatrixMarket matrix {'|'.join(FORMATS)} "
            "real|integer|pattern general|symmetric"
        )
    if banner[3] == "complex" or banner[4] == "hermitian":
        raise MaskError(f"{path}: holds complex numbers; write their absolute values, or the real parts")
    if banner[4] not in SYMMETRIES:
        raise MaskError(f"{path}: its symmetry is none of {', '.join(SYMMETRIES)}")
    return banner[2] == "array", banner[4]
