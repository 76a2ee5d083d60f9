"""Numbers that are out of range in a program's call, as the command line refuses them by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from numbers import Integral, Rational, Real
from typing import Any, ParamSpec, TypeVar

from pai_cli.errors import UsageError
from pai_cli.spectral.parameters import shown
from pai_cli.spelling import option

Given = ParamSpec("Given")
Result = TypeVar("Result")


def takes_numpy(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """The function with NumPy's numbers, those of a loop over `np.arange`, taken as Python's, which are checked and kept."""

    @wraps(function)
    def taking(*values: Given.args, **named: Given.kwargs) -> Result:
        return function(*map(plain, values), **{name: plain(value) for name, value in named.items()})

    return taking


def plain(value: Any) -> Any:
    """A number as one of Python's; anything else as it is."""
    if isinstance(value, int | float) or not isinstance(value, Real):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value if isinstance(value, Rational) else str(value))  # NumPy's 0.05 of 32 bits is 0.05


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
