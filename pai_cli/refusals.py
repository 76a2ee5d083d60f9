"""Parameters that do nothing beside others: whoever takes parameters states them in a table, and `refuse` reads it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pai_cli.errors import PaiError, UsageError
from pai_cli.spelling import option
from pai_cli.telling import note


@dataclass(frozen=True)
class Idle:
    """Parameters that do nothing in a call of which all of this holds.

    `names`: theirs. `text`: what is said of one: {it} is its name, {value} its name with its value, and the others are the
    call's values. `beside`: one of these was given too. `without`: none of these was. `where`: this is true of the call.
    """

    names: tuple[str, ...]
    text: str
    beside: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    where: Callable[[Any], object] | None = None

    def holds(self, call: Any, given: set[str], name: str) -> bool:
        """Whether the parameter is among those `given`, and does nothing."""
        return (
            name in given
            and (not self.beside or not given.isdisjoint(self.beside))
            and given.isdisjoint(self.without)
            and (self.where is None or bool(self.where(call)))
        )

    def told(self, values: Mapping[str, Any], name: str) -> str:
        """What is said of the parameter in a call with these values."""
        return self.text.format_map({**values, "it": option(name), "value": option(name, values[name])})


def refuse(
    function: Callable[..., Any],
    rules: Iterable[Idle],
    values: Mapping[str, Any],
    error: type[PaiError] | None = UsageError,
) -> None:
    """Raise the error for the first parameter that does nothing in this call; with None say it, of each.

    `function`: whose parameters they are, or the class; one is given where it is not as it is there by default.
    `values`: theirs, and of whatever else the rules ask about.
    """
    usual = {
        one.name: one.default for one in inspect.signature(function).parameters.values() if one.default is not one.empty
    }
    given = {name for name, value in values.items() if not _as_usual(value, usual.get(name, False))}
    call = SimpleNamespace(**values)
    for rule in rules:
        for name in rule.names:
            if rule.holds(call, given, name):
                if error is not None:
                    raise error(rule.told(values, name))
                note(rule.told(values, name))


def _as_usual(value: Any, usual: Any) -> bool:
    # Arrays and tables, which no default is, are not compared.
    empty = isinstance(value, list | tuple) and not value
    return value is None or value is usual or empty or (isinstance(value, str | int | float) and value == usual)


def idle_force(give: str, *outputs: str) -> Idle:
    """That `force` does nothing where none of these outputs is written. `give`: what is to be given."""
    return Idle(("force",), f"{{it}}: no file is written; give {give}, or leave it out", without=outputs)


def idle_packed(*outputs: str) -> Idle:
    """That `packed` does nothing where none of these masks is written."""
    first, mask = option(outputs[0]), option(outputs[0], "MASK")
    return Idle(("packed",), f"{{it}}: is about the mask that {first} writes; give {mask} too", without=outputs)
