"""Help that can be read: a line an option, under headings; or, where all of it is asked for, each option's whole text."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

WIDEST = 100  # columns; longer lines are hard to read
NAMES = 25  # columns for an option's names, where they fit
LEAST = 20  # columns for what is said of it; where there are not as many beside the names, it stands below them
INDENT = 6  # columns before it there
_BOTH = re.compile(r"--([\w-]+)/--no-\1$")  # a flag and its opposite, in one word
_END = re.compile(r"[;:.](?=\s|$)")


def first_clause(text: str) -> str:
    """What stands before the first stop."""
    return _END.split(text, maxsplit=1)[0]


def help_text(context: Any, panels: Mapping[str, str], *, whole: bool = False) -> str:
    """The help of a command, or of the group of them.

    `panels`: each parameter's heading, in the order that headings and options are shown in; one that is not in it stands
    last under the first. `whole`: every option's whole text.
    """
    command = context.command
    width = min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)
    parameters = command.get_params(context)
    arguments = [one for one in parameters if one.param_type_name == "argument"]
    places, first = list(panels), next(iter(panels.values()))
    options = [one for one in parameters if one.param_type_name == "option"]
    options.sort(key=lambda one: places.index(one.name) if one.name in panels else len(places))
    commands = getattr(command, "commands", {})
    takes = ["COMMAND", "..."] if commands else [str(one.metavar) for one in arguments]
    lines = [f"Usage: {' '.join([context.command_path, *takes, '[OPTIONS]'])}"]
    lines += _description(command.help or "", width, whole=whole)
    for one in arguments:
        lines += _row(str(one.metavar), one.help or "", width, whole=whole)
    if commands:
        lines.append("Commands:")
    for name, one in commands.items():
        lines += _row(name, one.help, width, whole=whole)
    for panel in dict.fromkeys(panels.values()):
        rows = [one for one in options if panels.get(one.name, first) == panel]
        lines += [f"{panel}:"] if rows else []
        for one in rows:
            lines += _row(_names(one), _told(one), width, whole=whole)
    return "\n".join([*lines, *_last(context, whole=whole)])


def _description(text: str, width: int, *, whole: bool) -> Iterator[str]:
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    for paragraph in paragraphs if whole else paragraphs[:1]:
        yield from wrap(paragraph, width, break_on_hyphens=False)
        yield ""


def _row(names: str, text: str, width: int, *, whole: bool) -> Iterator[str]:
    """One option: its names, and beside or below them the first clause, or all of the text."""
    text = " ".join(text.split())
    text = text if whole else first_clause(text)
    room, before = width - NAMES - 3, NAMES
    if room < LEAST:
        room, before = max(width - INDENT, LEAST), INDENT - 3
    if len(names) > before:
        yield f"  {names}"
        names = ""
    for line in wrap(text, room, break_on_hyphens=False) or [""]:
        yield f"  {names:<{before}} {line}".rstrip()
        names = ""


def _names(option: Any) -> str:
    """The short name, where there is one, the long one, and what it takes."""
    names = ", ".join(sorted(option.opts, key=len)) + "".join(f"/{name}" for name in option.secondary_opts)
    names = _BOTH.sub(r"--[no-]\1", names)
    return names if option.is_flag else f"{names} {option.metavar or option.name.upper()}"


def _told(option: Any) -> str:
    """Its text, and its default where the text leaves that to be shown."""
    text, default = str(option.help or ""), getattr(option.default, "value", option.default)
    if option.is_flag or default is None or callable(default):
        return text
    first = first_clause(text)
    return f"{first} [{default}]{text[len(first) :]}"


def _last(context: Any, *, whole: bool) -> list[str]:
    topic = "" if context.parent is None else f" {context.command.name}"
    more = [] if whole else [f"pai help{topic} says all of it."]
    return [*more, *filter(None, [context.command.epilog])]
