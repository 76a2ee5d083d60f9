"""The page of the study on Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write(folder: Path, lines: Sequence[Mapping[str, Any]], size: Any, seeds: int) -> str:  # noqa: ARG001
    """To be written."""
    return str(len(lines))
