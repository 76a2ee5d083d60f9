"""The exact cut between what is kept and what is not, found by counting in passes over the keys.

Each pass counts what lies above a window of keys, and looks at what lies in the window: a few distinct keys are counted one
by one, few weights are held, and of more a histogram is made that tells the next, narrower window. The first window is a
guess; where it misses, the next is all that is left on its other side. So every pass narrows the search, a wrong guess
costs a pass and no exactness, and one pass is the rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_cli.pruning.streaming.keys import Keys
from pai_cli.pruning.streaming.reading import Piece

HELD_BYTES = 48 * 2**20  # of keys in a window, of all layers together

FEW_KEYS = 1024  # distinct keys of a window that are counted one by one

BIN_BITS = 16  # of the histogram of a window that can neither be held nor counted by the key

Window = tuple[int, int]
"""The least and the largest key in it."""


@dataclass(frozen=True)
class LayerCut:
    """What a layer keeps: `kept` weights, those above `key` and, of the `equal` that have it, `ties`."""

    key: int
    kept: int
    ties: int
    equal: int


@dataclass(frozen=True)
class Tally:
    """What a pass finds in some weights: how many, how many above the window, and the keys inside."""

    size: int
    above: int
    inside: Keys


def tally(keys: Keys, window: Window) -> Tally:
    """Count keys above the window and gather those inside."""
    low, last = window
    inside = keys >= keys.dtype.type(low)
    above = keys > keys.dtype.type(last)
    inside ^= above
    return Tally(keys.size, int(np.count_nonzero(above)), keys[inside])


class Search:
    """The search for the `count` largest keys of some layers together; 0 < count < their size.

    `sizes`: of the layers, in network order, which is that of ties. `most`: the largest key that there can be. `window`:
    where the cut is guessed to be. One pass: `tally` every piece with `window`, `add` it; when `seen_all`, `finish`.
    Then `cuts` are there, or another pass is needed.
    """

    def __init__(self, sizes: Mapping[str, int], count: int, most: int, window: Window):
        self.sizes = sizes
        self.cuts: dict[str, LayerCut] | None = None
        self._count = count
        self._low, self._last = 0, most
        self._begin(window)

    def _begin(self, window: Window) -> None:
        self.window = window
        span = window[1] - window[0] + 1
        self._few = span <= FEW_KEYS
        self._shift = max(0, (span - 1).bit_length() - BIN_BITS)
        self._seen = 0
        self._above = dict.fromkeys(self.sizes, 0)
        self._inside = dict.fromkeys(self.sizes, 0)
        self._counts = {name: np.zeros(span, np.int64) for name in self.sizes} if self._few else {}
        self._held: dict[str, list[Keys]] = {name: [] for name in self.sizes}
        self._held_bytes = 0
        self._bins: NDArray[np.int64] | None = None

    @property
    def seen_all(self) -> bool:
        """Whether this pass has seen every weight."""
        return self._seen == sum(self.sizes.values())

    def add(self, layer: str, found: Tally) -> None:
        """Take in what the pass found in a piece of a layer."""
        self._seen += found.size
        self._above[layer] += found.above
        self._inside[layer] += found.inside.size
        if self._few:
            self._counts[layer] += self._binned(found.inside, 0, self.window[1] - self.window[0] + 1)
        elif self._bins is not None:
            self._bins += self._binned(found.inside, self._shift, len(self._bins))
        else:
            self._held[layer].append(found.inside)
            self._held_bytes += found.inside.nbytes
            if self._held_bytes > HELD_BYTES:
                self._spill()

    def _spill(self) -> None:
        """Too many to hold: a histogram instead, which will do for a narrower window."""
        self._bins = np.zeros(((self.window[1] - self.window[0]) >> self._shift) + 1, np.int64)
        for layers in self._held.values():
            for keys in layers:
                self._bins += self._binned(keys, self._shift, len(self._bins))
            layers.clear()

    def _binned(self, keys: Keys, shift: int, bins: int) -> NDArray[np.int64]:
        offsets = (keys - keys.dtype.type(self.window[0])) >> keys.dtype.type(shift)
        return np.bincount(offsets.astype(np.int64), minlength=bins)

    def finish(self) -> None:
        """End a pass: find the cut, or the next window."""
        above, inside = sum(self._above.values()), sum(self._inside.values())
        low, last = self.window
        if above >= self._count:
            self._narrow(last + 1, self._last)
        elif above + inside < self._count:
            self._narrow(self._low, low - 1)
        elif self._bins is not None:
            bin_ = _reached(self._bins, self._count - above)
            begin = low + (bin_ << self._shift)
            self._narrow(begin, min(last, begin + (1 << self._shift) - 1))
        else:
            self._settle(self._count - above)

    def _narrow(self, low: int, last: int) -> None:
        self._low, self._last = low, last
        self._begin((low, last))

    def _settle(self, rank: int) -> None:
        """The cut is the key of this rank, counted from the largest as 1, of those in the window."""
        if self._few:
            place = _reached(np.sum(list(self._counts.values()), axis=0), rank)
            key = self.window[0] + place
            found = {
                name: (int(counts[place + 1 :].sum()), int(counts[place])) for name, counts in self._counts.items()
            }
        else:
            every = np.concatenate([keys for layers in self._held.values() for keys in layers])
            every.partition(every.size - rank)
            key = int(every[every.size - rank])
            del every
            found = {name: _above_and_at(keys, key) for name, keys in self._held.items()}
        left = self._count - sum(self._above.values()) - sum(above for above, _ in found.values())
        self.cuts = {}
        for name, (above, equal) in found.items():
            ties = min(left, equal)
            left -= ties
            self.cuts[name] = LayerCut(key, self._above[name] + above + ties, ties, equal)
        self._held, self._counts = {}, {}


def _reached(counts: NDArray[np.int64], rank: int) -> int:
    """The place at which counts, summed from the end, reach `rank`."""
    return len(counts) - 1 - int(np.searchsorted(np.cumsum(counts[::-1]), rank))


def _above_and_at(pieces: list[Keys], key: int) -> tuple[int, int]:
    above = sum(int(np.count_nonzero(keys > keys.dtype.type(key))) for keys in pieces)
    return above, sum(int(np.count_nonzero(keys == keys.dtype.type(key))) for keys in pieces)


def without_search(size: int, count: int, most: int) -> LayerCut:
    """The cut of a layer of which all weights are kept, or none."""
    return LayerCut(most, 0, 0, 0) if count == 0 else LayerCut(0, size, size, size)


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


DRAFT_BYTES = 160 * 2**20  # of all drafts, a bit a weight and a little; weights past that are read or drawn again
MOST_INSIDE = 16  # one in so many of a piece's weights; a place and a key take up to 12 bytes
MORE = 1  # times the bytes of the largest tensor: memory is promised to stay under twice those and 500 MiB


@dataclass(frozen=True)
class Draft:
    """A piece's mask for any cut in a window: the bits of weights above it, the places and keys of those in it."""

    above: NDArray[np.uint8]
    places: NDArray[np.uint32]
    keys: Keys

    @property
    def size(self) -> int:
        """In bytes."""
        return self.above.nbytes + self.places.nbytes + self.keys.nbytes

    def mask(self, size: int, cut: LayerCut) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The weights above the cut, and those at it."""
        mask = np.unpackbits(self.above, count=size).view(np.bool_)
        equal = np.zeros(size, np.bool_)
        mask[self.places] = self.keys > self.keys.dtype.type(cut.key)
        equal[self.places] = self.keys == self.keys.dtype.type(cut.key)
        return mask, equal


def drafted(blocks: Iterable[Keys], window: Window) -> tuple[Tally, Draft | None]:
    """The tally of a piece, and its draft; None where so many weights are in the window that it would not be small.

    `blocks`: the keys one after the other, all but the last a multiple of 8; each is done with before the next.
    """
    size = above = 0
    small = True
    bits: list[NDArray[np.uint8]] = []
    places: list[NDArray[np.uint32]] = []
    inside: list[Keys] = []
    for keys in blocks:
        found = sift(keys, window, keys.size // MOST_INSIDE)
        if found.places is None:
            small = False
            inside.append(tally(keys, window).inside)
        else:
            inside.append(keys[found.places])
            places.append(found.places + np.uint32(size))
        bits.append(found.bits)
        above += found.above
        size += keys.size
    within = np.concatenate(inside)
    draft = Draft(np.concatenate(bits), np.concatenate(places), within) if small else None
    return Tally(size, above, within), draft


class Drafts:
    """As many as there is room for. `largest`: bytes of the largest tensor."""

    def __init__(self, largest: int) -> None:
        self._held: dict[str, dict[int, Draft]] = {}
        self._bytes = 0
        self._most = DRAFT_BYTES + MORE * largest

    @property
    def full(self) -> bool:
        """Whether there is no more room."""
        return self._bytes >= self._most

    def add(self, piece: Piece, draft: Draft) -> None:
        """Keep a draft, if there is room."""
        if not self.full:
            self._held.setdefault(piece.layer.name, {})[piece.start] = draft
            self._bytes += draft.size

    def drop(self, layers: Iterable[str]) -> None:
        """Forget the drafts of layers whose cuts were not in the window."""
        for name in layers:
            self._bytes -= sum(draft.size for draft in self._held.pop(name, {}).values())

    def get(self, piece: Piece) -> Draft | None:
        """The draft of a piece, where there is one."""
        return self._held.get(piece.layer.name, {}).get(piece.start)
