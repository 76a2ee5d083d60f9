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

CHUNK = 2**24  # bytes that are looked at together

PLAIN = b"0123456789+-.eE \t\r\n"
"""What an entry is written in, unless it is NaN or infinite."""

PLACE = re.compile(rb"[+-]?\d{1,18}")

NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)

UNREADABLE = "is no Matrix Market file that SciPy can read; write it again, as with scipy.io.mmwrite"

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
    per_line, skew = 1 if whole else 2 if banner[3] == "pattern" else 3, symmetry == "skew-symmetric"
    try:
        from scipy.io import mmread

        found = mmread(path)
    except (OSError, MemoryError) as e:
        raise MaskError(f"{path}: cannot be read: {reason_of(e)}") from e
    except (ValueError, OverflowError) as e:
        told = _fault(path, per_line, numbers, (rows, columns), skew=skew) or UNREADABLE
        raise MaskError(f"{path}: {told}") from e
    words = _words(path, len(head) - len(rest) + sizes.end(), whole=banner[3].endswith("integer"))
    odd = words != numbers * per_line or (skew and not whole and bool((found.row == found.col).any()))
    if odd and (told := _fault(path, per_line, numbers, (rows, columns), skew=skew)):
        raise MaskError(f"{path}: {told}")
    return found, SYMMETRIES[symmetry]


def _words(path: Path, begin: int, *, whole: bool) -> int:
    """How many words stand in the lines from `begin` on, where entries begin; 0 where one may be no number.

    SciPy takes for a number what begins as one (1.5D-03 is 1.5 to it, and 1,5 is 1), leaves out what else stands in a line,
    takes 0 for what a symmetric array lacks, and cuts off fractions of `whole` numbers, for which this raises `MaskError`.
    """
    import numpy as np

    words, odd = 0, False
    with path.open("rb") as stream:
        stream.seek(begin)
        while chunk := stream.read(CHUNK) + stream.readline():
            if whole and (found := re.search(rb"[.eE]", chunk)):
                at = stream.tell() - len(chunk) + found.start()
                number = path.read_bytes()[:at].count(b"\n") + 1
                raise MaskError(
                    f"{path}: line {number} is no whole number, as its banner says; write real in the banner"
                )
            ink = np.frombuffer(b"\n" + chunk, np.uint8) > ord(" ")
            words += int(np.count_nonzero(ink[1:] > ink[:-1]))
            odd = odd or bool(chunk.translate(None, PLAIN))
    return 0 if odd else words


def _fault(path: Path, per_line: int, numbers: int, sizes: tuple[int, int], *, skew: bool) -> str:
    """Which of the lines after the sizes, `numbers` of `per_line` words each, is wrong, and what helps; "" where none is."""
    count = -1  # the line of sizes is the first that is no comment
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            words = line.split()
            if not words or line.startswith(b"%"):
                continue
            count += 1
            if count > numbers:
                return f"line {number} comes after all {numbers:,} entries that its sizes tell of; write it again"
            if count and (told := _wrong(words, per_line, sizes, skew=skew)):
                return f"line {number} {told}; write it again"
    return f"ends after {count:,} of {numbers:,} entries; copy it again" if count < numbers else ""


def _wrong(words: list[bytes], per_line: int, sizes: tuple[int, int], *, skew: bool) -> str:
    """What is wrong with the words of an entry, of a skew-symmetric matrix or another; empty where nothing is."""
    indices = words[:2] if per_line > 1 else []
    if len(words) != per_line or not all(map(PLACE.fullmatch, indices)) or not NUMBER.fullmatch(words[-1]):
        return f"is not {('a number', 'row and column', 'row, column and number')[per_line - 1]}"
    places = list(map(int, indices))
    outside = any(not 1 <= place <= size for place, size in zip(places, sizes, strict=False))
    if outside:
        return f"is at ({places[0]}, {places[1]}), outside {sizes[0]:,} x {sizes[1]:,}"
    if skew and places and places[0] == places[1]:
        return f"is at ({places[0]}, {places[1]}), and a skew-symmetric matrix has no entry on its diagonal"
    return ""


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
    if banner[3] == "pattern" and (banner[2] == "array" or banner[4] == "skew-symmetric"):
        raise MaskError(
            f"{path}: is {' '.join(banner[2:])}, and a pattern tells of places alone, without numbers and signs; write it "
            "again as coordinate pattern general, or symmetric"
        )
    return banner[2] == "array", banner[4]
