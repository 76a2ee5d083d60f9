"""Options of a command as the library takes them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

OF_SHOWING = frozenset({"ctx", "format", "no_header", "columns", "sort"})
"""Parameters of a command that say how results are shown, which is no business of the library."""


def asked(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The command's parameters, `locals()` at its beginning, without those of showing; choices as plain text."""
    return {name: _plain(value) for name, value in parameters.items() if name not in OF_SHOWING}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, StrEnum) else value
