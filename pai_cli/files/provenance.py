"""How a file came to be: what goes into the metadata of everything `pai` writes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from pai_cli import __version__
from pai_cli.files.ordering import spelled

_typed: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())


@contextmanager
def typed_as(arguments: Sequence[str]) -> Iterator[None]:
    """Within the block, what is written tells that this was typed after `pai`."""
    token = _typed.set(tuple(arguments))
    try:
        yield
    finally:
        _typed.reset(token)


def typed() -> tuple[str, ...]:
    """What was typed after `pai`; nothing where a program asks."""
    return _typed.get()


def provenance(arguments: Sequence[str]) -> dict[str, str]:
    """`pai_version`, the `command` that ran where one did, and when it was `created` (UTC).

    SOURCE_DATE_EPOCH, as reproducible builds set it, replaces the clock, so that a file can be remade to the byte.
    """
    command = {"command": spelled(shlex.join(("pai", *arguments)))} if arguments else {}
    return {
        "pai_version": __version__,
        **command,
        "created": _moment().strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _moment() -> datetime:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not (epoch.isascii() and epoch.isdigit()):
        return datetime.now(UTC)
    try:
        return datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError):  # past what a clock can show
        return datetime.now(UTC)
