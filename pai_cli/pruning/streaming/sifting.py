"""Which of some keys lie above a window and which inside it: compiled where there is a C compiler, else by NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.pruning.streaming.keys import Keys

compiled: Any
try:
    compiled = import_module("pai_cli.pruning.streaming._sift")
except ImportError:  # installed without a compiler
    compiled = None


@dataclass(frozen=True)
class Sifted:
    """`bits`: those above the window, packed as NumPy does. `above`, `inside`: how many.

    `places` of those inside, uint32; None where they are more than there was room for.
    """

    bits: NDArray[np.uint8]
    above: int
    inside: int
    places: NDArray[np.uint32] | None


def sift(keys: Keys, window: tuple[int, int], room: int) -> Sifted:
    """Sift at most 2^32 contiguous keys. `window`: the least and the largest key in it, the least not above the largest
    plus one; `room`: how many places are wanted at most. Raises `ValueError` for other keys or another window.
    """
    if compiled is None:
        return _sift(keys, window, room)
    bits, places = np.empty(-(-keys.size // 8), np.uint8), np.empty(room, np.uint32)
    above, inside = compiled.sift(keys, bits, places, *window)
    return Sifted(bits, above, inside, places[:inside].copy() if inside <= room else None)


def _sift(keys: Keys, window: tuple[int, int], room: int) -> Sifted:
    above = keys > keys.dtype.type(window[1])
    within = (keys >= keys.dtype.type(window[0])) ^ above
    inside = int(np.count_nonzero(within))
    places = np.flatnonzero(within).astype(np.uint32) if inside <= room else None
    return Sifted(np.packbits(above), int(np.count_nonzero(above)), inside, places)
