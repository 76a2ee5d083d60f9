"""Methods that other distributions bring, through the entry-point group `pai.methods`.

An entry point names a `Method`, or a function without parameters that gives one; its name is the method's. Found by
reading the metadata of what is installed; imported only when a name is asked for that is not built in.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, distributions, entry_points

from pai_cli.files.messages import one_line
from pai_cli.pruning.base import Method

GROUP = "pai.methods"

ANY = ""
"""In the place of a name, where the fault is no one method's."""


@dataclass
class Plugins:
    """What was found: methods by name, and a line on each entry point that gives none, by name."""

    methods: dict[str, Method] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def found() -> tuple[EntryPoint, ...]:
    """The entry points, ordered by name and then by distribution. Imports none of them.

    There are none where the metadata of any distribution is damaged, which `taken` tells.
    """
    return _looked_up()[0]


def _looked_up() -> tuple[tuple[EntryPoint, ...], str]:
    try:
        return tuple(sorted(entry_points(group=GROUP), key=lambda one: (one.name, _distribution(one)))), ""
    except Exception as error:  # in the metadata of any distribution, whether or not it has methods
        told = (
            f"methods of other distributions are not looked up: the metadata {_where()} is damaged ({one_line(error)})"
        )
        return (), f"{told}; install that distribution again"


def _where() -> str:
    for one in distributions():
        try:
            for entry in one.entry_points.select(group=GROUP):
                _distribution(entry)
        except Exception:  # as above
            return f"in {getattr(one, '_path', 'one')}"
    return "of one"


def taken(names: Collection[str]) -> dict[str, str]:
    """By name, a line on each entry point that has one of `names`, which it may not take over; of `ANY`, on all."""
    entries, fault = _looked_up()
    told = {ANY: fault} if fault else {}
    return told | {
        one.name: f"{_title(one)} is not used: pai has a method of that name" for one in entries if one.name in names
    }


def load(names: Collection[str]) -> Plugins:
    """Every entry point imported but those that have one of `names`; what fails becomes a fault and hides no other."""
    plugins = Plugins(faults=taken(names))
    for one in found():
        if one.name in plugins.methods:
            plugins.faults[one.name] = f"{_title(one)} is not used: another distribution has a method of that name"
        elif one.name not in names:
            try:
                plugins.methods[one.name] = _method(one)
            except (Exception, SystemExit) as error:  # somebody else's code
                plugins.faults[one.name] = f"{_title(one)} cannot be used ({one_line(error)})"
    return plugins


def _method(one: EntryPoint) -> Method:
    loaded = one.load()
    if callable(loaded):
        loaded = loaded()
    if not isinstance(loaded, Method):
        raise TypeError(f"{one.value} gives {type(loaded).__name__}, not a pai_cli.pruning.base.Method")
    if loaded.name != one.name:
        raise ValueError(f"the method calls itself {loaded.name!r}")
    return loaded


def _title(one: EntryPoint) -> str:
    return f"method {one.name!r} of {_distribution(one)}"


def _distribution(one: EntryPoint) -> str:
    return f"{one.dist.name} {one.dist.version}" if one.dist else "an unnamed distribution"
