"""Random numbers from a seed: the one way in which anything here draws.

A generator depends on the seed and on what it is for, so that what one part draws changes nothing of another.
"""

from __future__ import annotations

import hashlib
from numbers import Integral
from typing import TYPE_CHECKING, Any

from pai_cli.errors import MethodOptionError
from pai_cli.spelling import option

if TYPE_CHECKING:
    import numpy as np

LARGEST_SEED = 2**63 - 1
"""The largest that every random generator here takes."""


def check_seed(seed: Any) -> None:
    """Raise `MethodOptionError` unless it is a whole number, 0 <= seed <= `LARGEST_SEED`."""
    whole = isinstance(seed, Integral) and not isinstance(seed, bool)  # NumPy's too
    if not whole:
        raise MethodOptionError(f"{option('seed')}: is of type {type(seed).__name__}; give a whole number")
    if not 0 <= seed <= LARGEST_SEED:
        raise MethodOptionError(f"{option('seed', seed)}: must be 0 to {LARGEST_SEED}")


def generator_for(seed: int, purpose: str) -> np.random.Generator:
    """A random generator that depends on the seed and on what it is for; different purposes are independent."""
    digest = hashlib.sha256(purpose.encode()).digest()
    return _generator(seed, *(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)))


def numbered_generator(seed: int, number: int) -> np.random.Generator:
    """The generator of one of many of a kind, such as a search's candidates."""
    return _generator(seed, number)


def numbered_seed(seed: int, number: int) -> int:
    """A seed, at most `LARGEST_SEED`, for one of many of a kind."""
    import numpy as np

    source = np.random.SeedSequence(seed, spawn_key=(number,))
    return int(source.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _generator(seed: int, *key: int) -> np.random.Generator:
    import numpy as np

    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def seed_torch(seed: int, device: str = "cpu") -> None:
    """Make what torch itself draws, in dropout for one, a function of the seed."""
    import torch

    # `torch.manual_seed` formats a traceback for every GPU library that is not in use: a millisecond a call.
    torch.default_generator.manual_seed(seed)
    if device.startswith("cuda"):
        torch.cuda.manual_seed(seed)
