"""How a file came to be: what goes into the metadata of everything `pai` writes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from pai_cli import __version__
from pai_cli.files.ordering import spelled

_typed: Sequence[str] | None = None


@contextmanager
def typed(arguments: Sequence[str]) -> Iterator[None]:
    """Within the block, a command line runs, on which this was typed after `pai`."""
    global _typed  # noqa: PLW0603  one process has one command line
    before, _typed = _typed, arguments
    try:
        yield
    finally:
        _typed = before


def provenance(arguments: Sequence[str] | None = None) -> dict[str, str]:
    """`pai_version`, the `command` that ran (`arguments`, or what was `typed`), and when it was `created` (UTC).

    A program has no command to tell. SOURCE_DATE_EPOCH, as reproducible builds set it, replaces the clock, so that a file
    can be remade to the byte.
    """
    words = _typed if arguments is None else arguments
    command = {} if words is None else {"command": spelled(shlex.join(("pai", *words)))}
    return {"pai_version": __version__, **command, "created": _moment().strftime("%Y-%m-%dT%H:%M:%SZ")}


def _moment() -> datetime:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not (epoch.isascii() and epoch.isdigit()):
        return datetime.now(UTC)
    try:
        return datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError):  # past what a clock can show
        return datetime.now(UTC)
