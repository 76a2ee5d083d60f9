"""What `torchrun` tells a process of itself. Imports nothing heavy."""

from __future__ import annotations

import os

from pai_cli.errors import TrainingError
from pai_cli.spectral.parameters import from_digits, shown


def started_by_torchrun() -> bool:
    """Whether this process is one of several that `torchrun` started."""
    return number_of("WORLD_SIZE", "1") > 1 and "RANK" in os.environ


def rank_here() -> int:
    """This process's number among those that `torchrun` started; 0 when it did not."""
    return number_of("RANK") if started_by_torchrun() else 0


def first_here() -> bool:
    """Whether this process speaks for all that `torchrun` started; also where its variables cannot be read."""
    try:
        return rank_here() == 0
    except TrainingError:
        return True


def world_here() -> int:
    """How many processes `torchrun` started; 1 when it did not."""
    return number_of("WORLD_SIZE") if started_by_torchrun() else 1


def number_of(variable: str, otherwise: str = "") -> int:
    """What a variable of the environment holds. Raises `TrainingError` unless that is a whole number."""
    text = os.environ.get(variable, otherwise)
    number = from_digits(text)
    if number is None:
        raise TrainingError(
            f"{variable}={shown(text)}: is no whole number; start the processes by torchrun, or unset it"
        )
    return number
