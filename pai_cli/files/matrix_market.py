"""Matrix Market files: the header is checked here, before SciPy believes what it says and makes room for it.

Boisvert, Pozo, Remington, "The Matrix Market exchange formats", NIST IR 5935, 1996.
"""

from __future__ import annotations

import re
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
    numbers = (rows * columns if symmetry == "general" else rows * columns // 2) if whole else int(sizes[3])
    least = 2 if whole or banner[3] != "pattern" else 4  # bytes of a line
    if numbers * least > path.stat().st_size:
        raise MaskError(
            f"{path}: tells of {numbers:,} numbers, more than its {path.stat().st_size:,} bytes hold; copy it again"
        )
    try:
        from scipy.io import mmread

        found = mmread(path)
    except (ValueError, OverflowError, OSError, MemoryError) as e:
        raise MaskError(f"{path}: no Matrix Market file that can be read: {reason_of(e)}") from e
    return found, SYMMETRIES[symmetry]


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
