"""A command and its function are one: the same parameters, the same defaults."""

from __future__ import annotations

import inspect
from enum import StrEnum
from typing import Any

import pytest

import pai_cli as pai
from pai_cli.app import app
from pai_cli.commands.given import OF_SHOWING

COMMANDS = {str(command.name): command.callback for command in app.registered_commands if command.name != "help"}
LISTINGS = {name: f"list_{name}" for name in ("methods", "metrics", "models")}
"""Names that the package has for its folders."""

OF_PROGRAMS = {"progress"}


def plain(default: Any) -> Any:
    """A default as a program writes it; one that must be given is None in a command that says so itself."""
    if default is inspect.Parameter.empty:
        return None
    return default.value if isinstance(default, StrEnum) else default


def parameters(function: Any, apart: set[str] | frozenset[str]) -> dict[str, Any]:
    every = inspect.signature(function).parameters.values()
    return {one.name: plain(one.default) for one in every if one.name not in apart}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_parameters_and_defaults(name: str) -> None:
    function = getattr(pai, LISTINGS.get(name, name))
    assert parameters(COMMANDS[name], OF_SHOWING) == parameters(function, OF_PROGRAMS)
