"""How a message names a parameter: `density=` to a program, `--density` on a command line.

What is below the command line does not know who asked. It names a parameter by `option`, and whoever shows the message
spells it: errors and warnings in Python by `for_python`, the command line by `for_shell`.
"""

from __future__ import annotations

import re

_BEGIN, _VALUE, _END = "\ue000", "\ue001", "\ue002"  # of Unicode's private use: in no message by themselves
_NAMED = re.compile(f"{_BEGIN}([a-z_]+)(?:{_VALUE}([^{_BEGIN}{_END}]*))?{_END}")

FLAGS = {"output": "-o", "weights_out": "-w", "kind": "--from"}
"""Flags that are not spelled as their parameters are."""


def option(name: str, value: object = None) -> str:
    """A parameter in a message, alone or with the value it has: `density=` and `density=1.5`."""
    told = "" if value is None else f"{_VALUE}{value}"
    return f"{_BEGIN}{name}{told}{_END}"


def for_python(text: str) -> str:
    """The message with parameters as a program gives them."""
    return _NAMED.sub(lambda found: f"{found[1]}={found[2] or ''}", text)


def for_shell(text: str) -> str:
    """The message with parameters as flags."""
    return _NAMED.sub(lambda found: " ".join(filter(None, (flag_of(found[1]), found[2]))), text)


def flag_of(name: str) -> str:
    """The flag of a parameter: `--freeze-every` of `freeze_every`."""
    return FLAGS.get(name, f"--{name.replace('_', '-')}")
