"""How a message names a parameter: `density=` to a program, `--density` on a command line.

What is below the command line does not know who asked. It names a parameter by `option`, and whoever shows the message
spells it: errors and warnings in Python by `for_python`, the command line by `for_shell`.
"""

from __future__ import annotations

import re

_BEGIN, _VALUE, _END = "\ue000", "\ue001", "\ue002"  # of Unicode's private use: in no message by themselves
_NAMED = re.compile(f"{_BEGIN}([a-z_]+)(?:{_VALUE}([^{_BEGIN}{_VALUE}{_END}]*))?{_END}")
_SPELLED_OUT = {ord(mark): f"\\u{ord(mark):x}" for mark in (_BEGIN, _VALUE, _END)}

FLAGS = {"output": "-o", "weights_out": "-w", "kind": "--from"}
"""Flags that are not spelled as their parameters are."""

SWITCHES = frozenset((
    *("amp", "between", "certify", "effective", "expansion_weighted", "force", "ghost_skips", "graphs", "head"),
    *("invert", "no_collapse", "no_header", "no_store", "normalise", "order", "overlap", "packed", "reinit", "rescale"),
    *("resume", "shuffle", "smallest_first", "soft_neurons", "summary", "trust"),
))  # fmt: skip
"""Parameters that are true or false: flags without a value, and `--no-rescale` of False."""


def option(name: str, value: object = None) -> str:
    """A parameter in a message, alone or with the value it has: `density=` and `density=1.5`.

    A switch alone is one that is on: `force=True`.
    """
    told = "" if value is None else f"{_VALUE}{f'{value}'.translate(_SPELLED_OUT)}"
    return f"{_BEGIN}{name}{told}{_END}"


def for_python(text: str) -> str:
    """The message with parameters as a program gives them."""
    return _NAMED.sub(_in_python, text)


def for_shell(text: str) -> str:
    """The message with parameters as flags."""
    return _NAMED.sub(_in_shell, text)


def flag_of(name: str) -> str:
    """The flag of a parameter: `--freeze-every` of `freeze_every`."""
    return FLAGS.get(name, f"--{name.replace('_', '-')}")


def _in_python(found: re.Match[str]) -> str:
    name, value = found.groups()
    if value is None and name in SWITCHES:
        value = "True"
    if value is None and found.string.startswith(":", found.end()):
        return name  # what is said of it follows
    return f"{name}={value or ''}"


def _in_shell(found: re.Match[str]) -> str:
    name, value = found.groups()
    if name in SWITCHES and value is not None:
        return flag_of(name if value == "True" else f"no_{name}")
    return f"{flag_of(name)} {value}" if value else flag_of(name)
