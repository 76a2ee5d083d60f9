"""Prune neural networks at initialisation: make masks, measure how well connected they are, rank them, find better ones.

    import pai_cli as pai

The names below are the public interface; `docs/python-api.md` tells of each. They are loaded when they are first used, so
that the import itself costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pai_cli.api.analyze import analyze
    from pai_cli.api.compact import compact
    from pai_cli.api.convert import convert
    from pai_cli.api.info import info
    from pai_cli.api.init import init
    from pai_cli.api.listings import list_methods, list_metrics, list_models
    from pai_cli.api.masks import Mask
    from pai_cli.api.matrix import ramanujan, singular_values
    from pai_cli.api.methods import method
    from pai_cli.api.mine import mine
    from pai_cli.api.prune import prune
    from pai_cli.api.rank import correlate, rank
    from pai_cli.api.report import Report
    from pai_cli.api.sample import sample
    from pai_cli.api.texts import to_text
    from pai_cli.api.train import train
    from pai_cli.errors import PaiError as Error
    from pai_cli.telling import PaiWarning

__version__ = "0.1.0"

__all__ = [
    "Error",
    "Mask",
    "PaiWarning",
    "Report",
    "__version__",
    "analyze",
    "compact",
    "convert",
    "correlate",
    "info",
    "init",
    "list_methods",
    "list_metrics",
    "list_models",
    "method",
    "mine",
    "prune",
    "ramanujan",
    "rank",
    "sample",
    "singular_values",
    "to_text",
    "train",
]

_MODULES = {
    "Mask": "api.masks",
    "PaiWarning": "telling",
    "Report": "api.report",
    "correlate": "api.rank",
    "list_methods": "api.listings",
    "list_metrics": "api.listings",
    "list_models": "api.listings",
    "method": "api.methods",
    "ramanujan": "api.matrix",
    "singular_values": "api.matrix",
    "to_text": "api.texts",
}
"""Where a public name stands that has not a module of its own name in `api`."""


def __getattr__(name: str) -> Any:
    if name == "Error":
        from pai_cli.errors import PaiError

        return PaiError
    if name not in __all__:
        raise AttributeError(f"module 'pai_cli' has no attribute {name!r}")
    return getattr(import_module(f"pai_cli.{_MODULES.get(name, f'api.{name}')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
