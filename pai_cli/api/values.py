"""What a program gives a function, as what is below takes it: paths, shapes, choices, and whoever watches long work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pai_cli.errors import UsageError
from pai_cli.progress import silent
from pai_cli.spelling import option

if TYPE_CHECKING:
    from pai_cli.progress import Progress

Pathlike = str | PathLike[str]
Shape = str | Sequence[int]
Choice = TypeVar("Choice", bound=StrEnum)


def path_of(given: Pathlike | None) -> Path | None:
    """The path, None where there is none."""
    return None if given is None else Path(given)


def shape_of(given: Shape | None) -> tuple[int, ...] | None:
    """`(3, 32, 32)` and "3,32,32" as a tuple. Raises `UsageError` for anything but whole numbers above 0."""
    from pai_cli.spectral.parameters import from_digits

    if given is None:
        return None
    if isinstance(given, str):
        sides = tuple(from_digits(side.strip()) or 0 for side in given.replace("x", ",").split(","))
        told = given
    else:
        sides = tuple(side if type(side) is int else 0 for side in given)
        told = ",".join(map(str, given))
    if not sides or min(sides) < 1:
        raise UsageError(f"{option('input_shape', told)}: give whole numbers above 0, such as 3,32,32")
    return sides


def choice_of(kind: type[Choice], given: str, name: str) -> Choice:
    """The member of that value. Raises `UsageError`, which names the parameter, where there is none."""
    try:
        return kind(given)
    except ValueError:
        known = ", ".join(one.value for one in kind)
        raise UsageError(f"{option(name, given)}: is not one of {known}") from None


def check_least(least: float, **given: float | None) -> None:
    """Raise `UsageError` for the first of these parameters that is below `least`."""
    for name, value in given.items():
        if value is not None and not value >= least:
            raise UsageError(f"{option(name, value)}: must be {least:g} or more")


@contextmanager
def watched(progress: Progress | bool | None, title: str) -> Iterator[Progress]:
    """Who is told how far the work is: a function as it is given, a bar on standard error for True, nobody otherwise."""
    from pai_cli.display.progress import progress_bar

    if progress is True:
        with progress_bar(title) as bar:
            yield bar
        return
    yield silent if progress is None or progress is False else progress
