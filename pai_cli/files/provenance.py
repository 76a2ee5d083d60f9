"""How a file came to be: what goes into the metadata of everything `pai` writes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pai_cli import __version__
from pai_cli.files.ordering import spelled

if TYPE_CHECKING:
    from pai_cli.files.checkpoints import Checkpoint

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


MADE_FROM = ("source_sha256", "redrawn_from_sha256")
"""What a checkpoint that `pai` wrote tells of the one that it was trained, or drawn anew, from."""


def other_weights(mask: object, metadata: Mapping[str, str], weights: Checkpoint) -> str:
    """That a mask was made from another file than the weights beside it, nor they from that one; "" where that is not so, or
    not known. `metadata`: of the mask.
    """
    made_from = metadata.get("source_sha256")
    if made_from is None or "converted_from" in metadata or not weights.files:
        return ""
    if made_from in (weights.sha256, *(weights.metadata.get(key) for key in MADE_FROM)):
        return ""
    return (
        f"{mask}: was made from another file than {weights.path}: its source_sha256 is {made_from[:12]}..., not "
        f"{weights.sha256[:12]}..."
    )
