"""Packages that only some kinds of data need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pai_cli.errors import DataError, install


def need(module: str, package: str, extra: str, what: str) -> Any:
    """The imported module; a `DataError` that says how to install its package when it cannot be imported."""
    try:
        return import_module(module)
    except ImportError as e:
        raise DataError(f"{what}: needs {package}; {install(extra)}") from e
