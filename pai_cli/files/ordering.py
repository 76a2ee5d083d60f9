"""Names: their order as a person would put them, which a glob means, and whether one is a plain file's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from pai_cli.errors import PaiError


def check_names(path: Path, names: Iterable[str], error: type[PaiError]) -> None:
    """Raise `error` for a tensor's name that is no Unicode text: a pickle can hold one, what is written cannot."""
    for name in names:
        if spelled(name) != name:
            raise error(f"{path}: tensor name {name!r} is no Unicode text; rename the tensor where the file is made")


def spelled(text: str) -> str:
    """The text with the bytes of a file name that is not UTF-8, which are no Unicode text, spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A sort key under which `features.2` comes before `features.10`."""
    return [_key(part) for part in re.split(r"([0-9]+)", name) if part]


def _key(part: str) -> tuple[int, int, str]:
    """Digits are compared by length, then as text: a number of any length, without making one of it."""
    digits = part.lstrip("0")
    return (0, len(digits), digits) if part[0] in "0123456789" else (1, 0, part)


def file_order(name: str) -> list[tuple[int, float | str]]:
    """A sort key for file names: `mask-2` before `mask-10`, and as densities have it `erk-0.05` before `erk-0.2`."""
    parts = re.split(r"([0-9]+\.[0-9]+|[0-9]+)", name)
    return [(0, float(part)) if part[0] in "0123456789" else (1, part) for part in parts if part]


_PART = re.compile(r"\[[0-9]+\]$")


def matches(name: str, glob: str) -> bool:
    """Whether a glob means the layer, whose name may be given without `.weight`, and an expert's without its number."""
    return any(fnmatchcase(name.removesuffix(end), glob) for end in ("", ".weight", *_PART.findall(name)))


def plain_file_name(name: str) -> bool:
    """Whether the name leads to no other folder and can be a file's at all."""
    if name in ("", ".", "..") or Path(name).name != name or set(name) & {"\\", "\0"}:
        return False
    return spelled(name) == name  # JSON can spell halves of a character
