"""Numbers that are out of range in a program's call, as the command line refuses them by itself."""

from __future__ import annotations

from pai_cli.errors import UsageError
from pai_cli.spectral.parameters import shown
from pai_cli.spelling import option


def check_least(least: float, **given: float | None) -> None:
    """Raise `UsageError` for the first of these parameters that is below `least`, or no number; None is not given."""
    for name, value in given.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
            raise UsageError(f"{option(name, shown(value))}: must be a number of {least:g} or more")


def check_numbers(**given: object) -> None:
    """Raise `UsageError` for the first of these parameters that is no number; None is not given."""
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UsageError(f"{option(name, shown(value))}: is not a number")


def check_whole_numbers(**given: object) -> None:
    """Raise `UsageError` for the first of these parameters that is no whole number; None is not given."""
    check_numbers(**given)
    for name, value in given.items():
        if isinstance(value, float):
            raise UsageError(f"{option(name, shown(value))}: is not a whole number")
