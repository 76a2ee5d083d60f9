"""Numbers and choices that a caller sets, checked as they come in; whatever holds them is made of plain Python values."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any, TypeVar

from pai_cli.errors import ParameterError
from pai_cli.spelling import option

Choice = TypeVar("Choice", bound=str)

LONGEST = 40  # characters of a wrong value that are shown
MOST_DIGITS = 18  # of a number in words: any with as many is an int64


def whole_number(name: str, value: Any, least: int, most: int) -> int:
    """The value as an int from `least` to `most`. Raises `ParameterError`, for True and False too."""
    try:
        number = None if type(value) is bool else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        raise ParameterError(f"{option(name, shown(value))}: give a whole number from {least:,} to {most:,}")
    return number


def real_number(name: str, value: Any, *, above: float, below: float) -> float:
    """The value as a float between two others. Raises `ParameterError`, for NaN, True and False too."""
    number = math.nan
    if type(value) is not bool and isinstance(value, Real):
        try:
            number = float(value)
        except OverflowError:  # an integer past every float
            number = math.inf
    if not above < number < below:
        raise ParameterError(f"{option(name, shown(value))}: give a number above {above:g} and below {below:g}")
    return number


def flag(name: str, value: Any) -> bool:
    """The value, which is True or False. Raises `ParameterError`."""
    if type(value) is not bool:
        raise ParameterError(f"{name}={shown(value)}: give True or False")
    return value


def from_digits(text: str) -> int | None:
    """The whole number that a text of ASCII digits writes; None for any other text, and past 18 digits."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS else None


def one_of(name: str, value: Any, choices: Iterable[Choice]) -> Choice:
    """The choice of that name. Raises `ParameterError` that lists all."""
    known = list(choices)
    if isinstance(value, str) and value in known:
        return known[known.index(value)]
    raise ParameterError(f"{option(name, shown(value))}: give one of {', '.join(known)}")


def shown(value: Any) -> str:
    """What was given, short and in one line."""
    try:
        text = repr(value)
    except Exception:  # an int of thousands of digits, or what another library's object does
        text = type(value).__name__
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
