"""What is wrong with a value on the command line, in this program's words; the library that reads values has others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pai_cli.spectral.parameters import shown

_NEEDED = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_BOUNDS = {
    "greater_than_equal": ("ge", "{} or more"),
    "less_than_equal": ("le", "{} or less"),
    "greater_than": ("gt", "more than {}"),
    "less_than": ("lt", "less than {}"),
}


def wrong_value(error: Any) -> str:
    """`--jobs 0: give 1 or more`, of an error that a value's reader raised; "" of any other."""
    parameter, faults = getattr(error, "param", None), getattr(error.__cause__, "errors", None)
    if parameter is None or faults is None:
        return ""
    fault: Mapping[str, Any] = faults()[0]
    given = fault.get("input")
    value = given if isinstance(given, str) and given.isprintable() and given else shown(given)
    return f"{_name(parameter)} {value}: give {_needed(fault, parameter)}"


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name)
    return str(max(parameter.opts, key=len))


def _needed(fault: Mapping[str, Any], parameter: Any) -> str:
    kind = str(fault.get("type"))
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        number = fault["ctx"][bound]
        return words.format(f"{number:,}" if isinstance(number, int) else f"{number:g}")
    if needed := _NEEDED.get(kind.partition("_")[0]):
        return needed
    _, listed, choices = str(fault.get("msg")).partition(" is not one of ")
    names = choices.replace("'", "").rstrip(".")
    return f"one of {names}" if listed else str(parameter.metavar or "another value")
